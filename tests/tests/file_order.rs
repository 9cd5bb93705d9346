//! What an experiment says does not depend on the order in which the files of its pictures come: two classes of unequal size in
//! sorted folders, against the same pictures under names that sort otherwise. Asserted are an effect that is large (four codes
//! per position against one) and one that is none (two nearly equal weights of the commitment), in words, sign and verdict; numbers
//! move a little, since other pictures are measured where a setting takes a part of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, or says why it is skipped"
)]

use rqlab_dataset_parquet::ParquetConfig;
use rqlab_sdk::config::Config;
use rqlab_sdk::contracts::{Dataset, DatasetContext, Split};
use rqlab_sdk::tensor::Rng;
use rqlab_tests::lab::Lab;
use std::fs;
use std::path::Path;

/// The count of measured images cuts the test split.
const EXPERIMENT: &str = r#"// Which order?
(
    question: "Does the order of files change what is said?",
    data: folder(path: "sorted", size: 32),
    autoencoder: resnet(patch: 4, width: 16, multipliers: [1], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 1, codebook: 8, beta: 0.02),
    tokenizer_training: (steps: 600, batch: 8, lr: 3e-3, warmup: 10, quantize_after: 100),
    evaluation: (images: 40, pictures: 2, classifier_steps: 200),
    axes: { "quantizer.depth": [1, 4], "quantizer.beta": [0.02, 0.021] },
    report: (compare: [
        (metric: "psnr", along: "quantizer.depth", from: 1, to: 4),
        (metric: "psnr", along: "quantizer.beta", from: 0.02, to: 0.021),
    ]),
    seeds: [0, 1, 2],
)
"#;

/// A picture's name, in the folder of its class.
type Name<'a> = &'a dyn Fn(&str, usize) -> String;

/// Saves pictures of classes, which come one after the other.
fn save(folder: &Path, split: &str, pictures: &[(&str, image::RgbImage)], name: Name<'_>) {
    for (n, (class, picture)) in pictures.iter().enumerate() {
        let path = folder.join(split).join(name(class, n));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    }
}

/// Runs the experiment on the folders `sorted`, `reversed` and `renamed`, and asserts that it says the same of each.
fn the_same_is_said(lab: &Lab, splits: &[(&str, Vec<(&str, image::RgbImage)>)]) {
    let sorted: Name<'_> = &|class, n| format!("{class}/{n:04}.png");
    let reversed: Name<'_> = &|class, n| format!("{class}/{:04}.png", 9999 - n);
    // Other names of the classes, too, in the other order; and files of a class no longer in a row.
    let renamed: Name<'_> = &|class, n| {
        let other: String = class.chars().rev().collect();
        format!("{}{other}/{:04}.png", if other.as_str() < class { "z" } else { "a" }, n * 7919 % 9973)
    };
    for (folder, name) in [("sorted", sorted), ("reversed", reversed), ("renamed", renamed)] {
        for (split, pictures) in splits {
            save(&lab.path(folder), split, pictures, name);
        }
    }
    lab.write("order.ron", EXPERIMENT).unwrap();
    let of = |folder: &str| {
        let set = format!("sweep order.ron --runs r --out o --name {folder} --set data.path={folder}");
        let said = lab.run(&set).unwrap();
        assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
        let page = lab.read(&format!("o/{folder}/index.html")).unwrap();
        (verdicts(&page), said.out)
    };
    let (first, out) = of("sorted");
    assert_eq!(first.len(), 2, "{out}");
    let depth = first.iter().find(|verdict| verdict.subject.starts_with("depth 1 → 4: PSNR +")).unwrap();
    assert!(depth.class == "better", "{out}");
    let beta = first.iter().find(|verdict| verdict.subject.starts_with("beta 0.02 → 0.021: PSNR")).unwrap();
    assert!(beta.class == "unclear", "{out}");
    for folder in ["reversed", "renamed"] {
        let (then, other) = of(folder);
        for verdict in first.iter().filter(|verdict| verdict.subject.contains(" → ")) {
            let same = then.iter().find(|then| then.what() == verdict.what());
            let same = same.unwrap_or_else(|| panic!("{} is not said of {folder}:\n{other}", verdict.subject));
            let null = verdict.class == "unclear";
            assert!(same.class == verdict.class, "{} of {folder}\n{out}\n{other}", verdict.subject);
            assert!(null || same.sign() == verdict.sign(), "{} of {folder}\n{out}\n{other}", verdict.subject);
        }
    }
}

/// A verdict of a page.
struct Verdict {
    /// Its kind: better, worse, unclear, ..
    class: String,
    /// Its sentence, as it is shown.
    subject: String,
}

impl Verdict {
    /// What it is about, without its number: `depth 1 → 4: PSNR`.
    fn what(&self) -> &str {
        let (what, number) = self.subject.split_once(": ").unwrap_or((&self.subject, ""));
        let label = number.split(['+', '−', '0']).next().unwrap_or(number).trim_end();
        &self.subject[..what.len() + ": ".len() + label.len()]
    }

    fn sign(&self) -> bool {
        self.subject.contains('+')
    }
}

/// The verdicts in a page.
fn verdicts(page: &str) -> Vec<Verdict> {
    let list = page.split("<ul class=\"verdicts\">").nth(1).unwrap().split("</ul>").next().unwrap();
    let text = |html: &str| {
        html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect::<String>()
    };
    let one = |item: &str| Verdict {
        class: item.split('"').next().unwrap().to_owned(),
        subject: text(item.split("<p class=\"sentence\">").nth(1).unwrap().split("</p>").next().unwrap()),
    };
    list.split("<li class=\"").skip(1).map(one).collect()
}

#[test]
fn a_folder_of_two_classes_of_unequal_size_says_the_same_in_any_order() {
    // Five shapes of fixed random colours and places: discs of one class, squares of the other.
    let picture = |class: &str, n: u32| {
        let random = Rng::new(0, class, u64::from(n)).uniform(6 * 6);
        image::RgbImage::from_fn(32, 32, |x, y| {
            let covers = |shape: &&[f32]| {
                let [across, down] =
                    [(x, shape[0]), (y, shape[1])].map(|(at, centre)| (at as f32 - 32.0 * centre).abs());
                let size = 3.0 + 8.0 * shape[2];
                if class == "discs" { across.hypot(down) < size } else { across.max(down) < size }
            };
            let ground = &random[..6];
            let top = random[6..].chunks(6).rfind(covers).unwrap_or(ground);
            image::Rgb([top[3], top[4], top[5]].map(|x| (255.0 * x) as u8))
        })
    };
    let split = |discs: u32, squares: u32, from: u32| -> Vec<(&str, image::RgbImage)> {
        let of = |class: &'static str, count: u32| (from..from + count).map(move |n| (class, picture(class, n)));
        of("discs", discs).chain(of("squares", squares)).collect()
    };
    let lab = Lab::new().unwrap();
    the_same_is_said(&lab, &[("train", split(90, 20, 0)), ("test", split(45, 12, 200))]);
}

#[test]
fn pictures_of_cifar10_say_the_same_in_any_order() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cifar10");
    if !home.is_dir() {
        eprintln!("skipped: ../shared/data/cifar10 is not here");
        return;
    }
    let config = ParquetConfig::parse(&format!("parquet(path: {:?})", home.display().to_string())).unwrap();
    let data = rqlab_dataset_parquet::open(config, &DatasetContext::new(".")).unwrap();
    let classes = [("airplane", 120, 50), ("cat", 40, 20)];
    let split = |split: Split, all: usize, count: fn(&(&str, usize, usize)) -> usize| {
        let labels = data.labels(split, &(0..all).collect::<Vec<_>>()).unwrap();
        let mut pictures = Vec::new();
        for class in &classes {
            let label = data.info().classes.iter().position(|name| name == class.0).unwrap() as u32;
            let of_it: Vec<usize> = (0..all).filter(|&n| labels.as_slice()[n] == label).take(count(class)).collect();
            let pixels = data.batch(split, &of_it, None).unwrap().pixels;
            let [_, height, width, _] = pixels.dims::<4>("pictures").unwrap();
            for picture in pixels.as_slice().chunks(height * width * 3) {
                let bytes = picture.iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect();
                pictures.push((class.0, image::RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()));
            }
        }
        pictures
    };
    let lab = Lab::new().unwrap();
    let splits = [("train", split(Split::Train, 4000, |c| c.1)), ("test", split(Split::Test, 2000, |c| c.2))];
    the_same_is_said(&lab, &splits);
}
