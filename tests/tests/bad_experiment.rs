//! An experiment that is bad in every way: the page says so before all else, and draws no moral from it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::Lab;
use std::fs;

/// A strong commitment collapses the codebook, and its prior then needs the fewest bits: the moral that must not be drawn.
const EXPERIMENT: &str = r#"// A strong commitment is far better.
(
    question: "Does a strong commitment make codes that are easier to model?",
    data: folder(path: "pictures", size: 16),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 1, codebook: 1024),
    prior: ar(width: 32, heads: 2, layers: 2),
    tokenizer_training: (steps: 100, batch: 4, lr: 3e-3, warmup: 2, log: 5),
    prior_training: (steps: 150, batch: 8, lr: 5e-3, warmup: 2, images: 8, log: 10, augmentation: none),
    evaluation: (images: 8, samples: 10, speed: [], pictures: 2, classifier_steps: 2),
    axes: { "quantizer.beta": [0.02, 500], "quantizer.dead_codes": [restart, keep] },
    report: (headline: "entropy_bits_per_image"),
    seeds: [0, 1],
)
"#;

/// Two classes of 60 and 12 training images, in two sorted folders.
fn pictures(lab: &Lab) {
    for (split, share) in [("train", 1), ("test", 2)] {
        for (class, count) in [("apples", 60_u32), ("bananas", 12)] {
            let folder = lab.path("pictures").join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for n in 0..count / share {
                let apple = class == "apples";
                let (left, top) = (n * 5 % 7, n * 3 % 8);
                let picture = image::RgbImage::from_fn(16, 16, |x, y| {
                    let inside = (left..left + 8).contains(&x) && (top..top + if apple { 8 } else { 3 }).contains(&y);
                    let fruit = if apple { [150 + (n % 16) as u8 * 6, 40, 30] } else { [200, 190, 20] };
                    image::Rgb(if inside {
                        fruit
                    } else {
                        [(n * 37 % 90) as u8, (n * 53 % 90) as u8, (n * 71 % 90) as u8]
                    })
                });
                picture.save(folder.join(format!("{n:03}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn the_page_says_what_is_bad_before_any_verdict() {
    let lab = Lab::new().unwrap();
    pictures(&lab);
    lab.write("bad.ron", EXPERIMENT).unwrap();
    let said = lab.run("sweep bad.ron --runs r --out o --jobs 2").unwrap();
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let page = lab.read("o/bad/index.html").unwrap();
    let (head, rest) = page.split_once("id=\"verdicts\"").unwrap();
    for words in [
        "A codebook has collapsed",
        "of 1024 codes at depth 1: the codebook carries no more than",
        "The feature classifier knows little",
        "always naming the largest class",
        "A prior is no better than none",
        "A prior overfits",
        "A codebook is larger than the tokens that measure it",
        "512 tokens measure the use of 1024 codes: usage cannot exceed 50%",
        "Codes never settle",
        "Classes are of unequal size",
        "6 to 30 images in a class",
        "2 seeds, fewer than 3",
        "8 of 36 test images are measured",
    ] {
        assert!(head.contains(words), "the head does not say: {words}\n{}", said.out);
    }
    // The same is said at the end of the sweep, before the verdicts; and these are none.
    let lines: Vec<&str> = said.out.lines().collect();
    let last_warning = lines.iter().rposition(|line| line.starts_with("Warning: ")).unwrap();
    let first_verdict = lines.iter().position(|line| line.contains(" → ")).unwrap();
    assert!(last_warning < first_verdict, "{}", said.out);
    for verdict in lines.iter().filter(|line| line.contains(" → ")) {
        assert!(verdict.contains("and no verdict"), "{verdict}");
    }
    let verdicts = rest.split("</section>").next().unwrap();
    assert!(verdicts.contains("no verdict: what is compared is not sound"), "{verdicts}");
    for word in ["class=\"better\"", "class=\"worse\"", " times lower", "<strong>"] {
        assert!(!verdicts.contains(word), "{word} in {verdicts}");
    }
}
