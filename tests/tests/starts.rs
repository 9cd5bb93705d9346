//! Training from given weights, parameters that stay as they are, and one's own pictures as tokens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::{Lab, Said, csv};
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};

/// One trial; NAME stands for further settings of the tokenizer's training.
fn experiment(training: &str) -> String {
    format!(
        r#"(
    question: "Does it start where it should?",
    data: dead_leaves(size: 16, train: 64, test: 32, classes: 2),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 2, codebook: 16),
    tokenizer_training: (batch: 4, warmup: 2, {training}),
    evaluation: (images: 16, speed: [], pictures: 2, classifier_steps: 5),
)
"#
    )
}

fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

fn refused(lab: &Lab, arguments: &str) -> String {
    let said = lab.run(arguments).unwrap();
    assert_eq!(said.code, Some(2), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said.err
}

/// The tokenizer's stage of an experiment's only trial, in a folder of runs of its own.
fn trained(lab: &Lab, name: &str, training: &str) -> PathBuf {
    lab.write(&format!("{name}.ron"), experiment(training)).unwrap();
    ok(lab, &format!("sweep {name}.ron --runs {name} --out o --jobs 1"));
    lab.stages(name, "tokenizer").unwrap().remove(0)
}

fn weights(stage: &Path) -> Checkpoint {
    Checkpoint::load(&stage.join("result.safetensors")).unwrap()
}

#[test]
fn a_tokenizer_starts_from_given_weights_and_leaves_what_is_frozen() {
    let lab = Lab::new().unwrap();
    let first = weights(&trained(&lab, "first", "steps: 6"));
    let stage = lab.stages("first", "tokenizer").unwrap().remove(0);
    let from = stage.strip_prefix(lab.path("")).unwrap_or(&stage).display().to_string();

    let kept = weights(&trained(&lab, "kept", &format!("from: {from:?}, steps: 0")));
    for (name, tensor) in &first.tensors {
        assert_eq!(kept.tensors[name].to_vec(), tensor.to_vec(), "{name}");
    }

    let settings =
        format!("from: {from:?}, steps: 6, lr: 1e-2, freeze: [\"encoder.*\", \"quant_conv.*\", \"quantizer.*\"]");
    let tuned = weights(&trained(&lab, "tuned", &settings));
    for (name, tensor) in &first.tensors {
        let stays =
            ["autoencoder.encoder.", "autoencoder.quant_conv.", "quantizer."].iter().any(|part| name.starts_with(part));
        assert_eq!(tuned.tensors[name].to_vec() == tensor.to_vec(), stays, "{name}");
    }
}

#[test]
fn other_weights_are_another_result_and_what_does_not_fit_is_refused_before_any_work() {
    let lab = Lab::new().unwrap();
    let stage = trained(&lab, "first", "steps: 2");
    fs::copy(stage.join("result.safetensors"), lab.path("given.safetensors")).unwrap();
    let id = |name: &str| {
        let stage = trained(&lab, name, "from: \"given.safetensors\", steps: 0");
        stage.file_name().unwrap().to_owned()
    };
    let before = id("a");
    assert_eq!(before, id("b"), "the same file under the same name");
    let mut changed = Checkpoint::load(&lab.path("given.safetensors")).unwrap();
    let tensor = changed.tensors.get_mut("autoencoder.decoder.conv_out.bias").unwrap();
    *tensor = tensor.add_scalar(0.5).unwrap();
    changed.save(&lab.path("given.safetensors")).unwrap();
    assert_ne!(before, id("c"), "another file under the same name");

    let plan = |training: &str| {
        lab.write("x.ron", experiment(training)).unwrap();
        refused(&lab, "plan x.ron")
    };
    assert!(plan("from: \"absent.safetensors\", steps: 0").contains("absent.safetensors"));
    assert!(plan("freeze: [\"endocer.*\"]").contains("`freeze` names `endocer.*`, which no parameter is called"));
    assert!(plan("freeze: [\"*.embed_ema\"]").contains("name all of `quantizer.*` or none of it"));
    changed.tensors.remove("autoencoder.quant_conv.bias");
    changed.tensors.insert("autoencoder.more".to_owned(), rqlab_sdk::tensor::Tensor::zeros(&[1]));
    changed.save(&lab.path("given.safetensors")).unwrap();
    let said = plan("from: \"given.safetensors\", steps: 0");
    assert!(said.contains("there is no `autoencoder.quant_conv.bias` [8]"), "{said}");
    assert!(said.contains("`autoencoder.more` [1] is no part of the model"), "{said}");
}

/// The numbers of the only trial in a table, but for times and memory.
fn measures(lab: &Lab, name: &str) -> Vec<(String, String)> {
    let rows = csv(&lab.read(&format!("o/{name}/results.csv")).unwrap());
    let passing = ["trial", "seconds", "memory", "_per_"];
    let cells = rows[0].iter().cloned().zip(rows[1].iter().cloned());
    cells.filter(|(column, _)| !passing.iter().any(|part| column.contains(part))).collect()
}

/// What was trained here goes out under the names of a published system, comes back, and is what experiments stand on.
#[test]
fn a_tokenizer_comes_back_from_published_names_as_it_was() {
    let lab = Lab::new().unwrap();
    let experiment = |start: &str| {
        format!(
            r#"({start}
    question: "Is it as it was?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    evaluation: (images: 16, speed: [], pictures: 2, classifier_steps: 5),
    seeds: [0],
)
"#
        )
    };
    let components = "
    autoencoder: vqvae2(factors: [2, 2], width: 8, blocks: 1, residual_width: 4, code_channels: 4),
    quantizer: vq(codebook: 16, decay: 0.99, dead_codes: keep, initial_count: 0.0),
    tokenizer_training: (steps: 3, batch: 8, warmup: 1),";
    lab.write("here.ron", experiment(components)).unwrap();
    ok(&lab, "sweep here.ron --out o --jobs 1");
    ok(&lab, "export here.ron --system vqvae2 -o published.safetensors");
    let published = fs::read(lab.path("published.safetensors")).unwrap();
    let published = SafeTensors::deserialize(&published).unwrap();
    for (name, shape) in [("quantize_t.embed", vec![4, 16]), ("quantize_b.cluster_size", vec![16])] {
        assert_eq!(published.tensor(name).unwrap().shape(), shape, "{name}");
    }
    let said = ok(&lab, "import published.safetensors --as back --size 16x16");
    assert!(said.out.contains("vqvae2"), "{}", said.out);

    lab.write("back.ron", experiment("\n    base: \"imports/back.ron\",")).unwrap();
    ok(&lab, "sweep back.ron --out o --jobs 1");
    assert_eq!(measures(&lab, "back"), measures(&lab, "here"));
    let page = lab.read("o/back/index.html").unwrap();
    assert!(page.contains("started from") && !page.contains("was not trained"));

    // A trial says what the file is as well as its shapes do; one of another model does not.
    ok(&lab, "import published.safetensors --as again --trial here.ron");
    let [back, again] =
        ["back", "again"].map(|name| Checkpoint::load(&lab.path(&format!("imports/{name}.safetensors"))).unwrap());
    assert_eq!(back.tensors.keys().collect::<Vec<_>>(), again.tensors.keys().collect::<Vec<_>>());
    assert!(back.tensors.iter().all(|(name, tensor)| tensor.to_vec() == again.tensors[name].to_vec()));
    lab.write("wide.ron", experiment(&components.replace("width: 8", "width: 12"))).unwrap();
    let said = refused(&lab, "import published.safetensors --as wide --trial wide.ron");
    assert!(said.contains("enc_b.blocks.0.weight") && said.contains("dec.blocks.0.weight"), "{said}");
    let said = refused(&lab, "import published.safetensors --as none --trial here.ron#zzzz");
    assert!(said.contains("no trial begins with `zzzz`"), "{said}");
}

/// A picture with a gradient.
fn picture(path: &Path, width: u32, height: u32) {
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(8 * x) as u8, (8 * y) as u8, 128])).save(path).unwrap();
}

#[test]
fn pictures_become_codes_and_codes_pictures_of_their_tokenizer_alone() {
    let lab = Lab::new().unwrap();
    trained(&lab, "one", "steps: 4");
    trained(&lab, "two", "steps: 5");
    fs::create_dir(lab.path("in")).unwrap();
    picture(&lab.path("in/a.png"), 16, 16);
    picture(&lab.path("in/b.jpg"), 40, 20);
    let said = ok(&lab, "tokenize one.ron in --runs one -o codes.safetensors");
    assert!(said.err.contains("1 picture scaled and cut to 16 x 16"), "{}", said.err);
    let codes = Checkpoint::load(&lab.path("codes.safetensors")).unwrap();
    assert_eq!(codes.codes["codes"].shape(), [2, 8, 8, 2]);
    ok(&lab, "detokenize one.ron codes.safetensors --runs one -o out");
    for name in ["a", "b"] {
        assert_eq!(image::image_dimensions(lab.path(&format!("out/{name}.png"))).unwrap(), (16, 16));
    }
    assert!(refused(&lab, "detokenize one.ron codes.safetensors --runs one -o out").contains("is there already"));
    let said = refused(&lab, "detokenize two.ron codes.safetensors --runs two -o other");
    assert!(said.contains("these are codes of the tokenizer") && !lab.path("other").exists(), "{said}");
    lab.write("in/c.png", "no picture").unwrap();
    assert!(refused(&lab, "tokenize one.ron in --runs one").contains("c.png"));
    assert!(refused(&lab, "tokenize one.ron absent.png --runs one").contains("absent.png"));
    assert!(refused(&lab, "tokenize nothing absent.png").contains("nothing"));
}
