//! Ranks that train together, here threads of one process, leave what one rank leaves, to rounding; and so do the parts of a step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab::job::Job;
use rqlab::jobs::run_worker;
use rqlab::plan::{Plan, open};
use rqlab::plugins::{Plugins, Search};
use rqlab::store::{Standing, Store};
use rqlab_reports::Curve;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::ranks::{Alone, Communicator, team};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use tempfile::TempDir;

/// Six steps on eight images each.
const EXPERIMENT: &str = r#"(
    question: "Do ranks agree?",
    data: dead_leaves(size: 16, train: 64, test: 16, classes: 4),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: QUANTIZER,
    objective: OBJECTIVE,
    PRIOR
    tokenizer_training: (steps: 6, batch: 8, lr: 1e-3, warmup: 2, log: 3, checkpoint: 4),
    prior_training: (steps: 6, batch: 8, lr: 1e-3, warmup: 2, images: 32, log: 3, validation: 8, condition_dropout: 0.3),
    evaluation: (images: 8, samples: 8, speed: [], pictures: 2, classifier_steps: 2),
    seeds: [0],
)
"#;

/// What the stages of training left: parameters and buffers, and curves.
type Left = BTreeMap<String, (BTreeMap<String, Vec<f32>>, Vec<Curve>)>;

struct Lab {
    folder: TempDir,
    plugins: Plugins,
    plan: Plan,
}

impl Lab {
    fn new(quantizer: &str, objective: &str, prior: &str, set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = EXPERIMENT.replace("QUANTIZER", quantizer).replace("OBJECTIVE", objective).replace("PRIOR", prior);
        let path = folder.path().join("x.ron");
        std::fs::write(&path, text).unwrap();
        let beside = Path::new(env!("CARGO_BIN_EXE_rqlab")).parent().unwrap().to_owned();
        let plugins = Plugins::load(&Search::usual(vec![beside])).unwrap_or_else(|error| panic!("{}", error.message));
        let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
        let plan = open(path.to_str().unwrap(), &set, None, &plugins).unwrap_or_else(|invalid| panic!("{invalid}"));
        Self { folder, plugins, plan }
    }

    /// Does all stages up to the last that ranks can share, those by so many.
    fn left_by(&self, size: usize) -> Left {
        let runs = self.folder.path().join(format!("runs-{size}"));
        let store = Store::open(&runs).unwrap();
        let last = self.plan.jobs.iter().rposition(|job| job.stage.batch().is_some()).unwrap();
        let mut left = Left::new();
        for job in &self.plan.jobs[..=last] {
            store.stage(&job.id).prepare(job).unwrap();
            if job.stage.batch().is_none() {
                run_worker(&store, &job.id, None, &self.plugins, &(Rc::new(Alone) as Rc<dyn Communicator>)).unwrap();
                continue;
            }
            std::thread::scope(|scope| {
                for rank in team(size) {
                    let (plugins, runs) = (&self.plugins, &runs);
                    scope.spawn(move || {
                        let ranks: Rc<dyn Communicator> = Rc::new(rank);
                        run_worker(&Store::open(runs).unwrap(), &job.id, None, plugins, &ranks).unwrap();
                    });
                }
            });
            left.insert(job.stage.name().to_owned(), result(&store, job, size));
        }
        left
    }
}

fn result(store: &Store, job: &Job, size: usize) -> (BTreeMap<String, Vec<f32>>, Vec<Curve>) {
    let stage = store.stage(&job.id);
    let Standing::Done(done) = stage.standing().unwrap() else { panic!("{} is not done", job.stage.name()) };
    assert_eq!(done.environment.unwrap().ranks, Some(size).filter(|&size| size > 1));
    let tensors = Checkpoint::load(&stage.result()).unwrap().tensors;
    (tensors.into_iter().map(|(name, tensor)| (name, tensor.to_vec())).collect(), done.curves)
}

/// How far two results are apart: the largest difference of numbers, in units of what Adam may move one in all steps.
fn assert_alike(found: &Left, wanted: &Left, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (stage, (tensors, curves)) in wanted {
        let (own, own_curves) = &found[stage];
        assert_eq!(own.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
        for (name, numbers) in tensors {
            let far = own[name].iter().zip(numbers).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(far < 5e-5, "{what}, {stage}: `{name}` differs by {far}");
        }
        assert_eq!(own_curves.len(), curves.len(), "{what}, {stage}");
        for (own, curve) in own_curves.iter().zip(curves) {
            assert_eq!((&own.measure, &own.at, &own.steps), (&curve.measure, &curve.at, &curve.steps), "{what}");
            for (a, b) in own.values.iter().zip(&curve.values) {
                assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{what}, {stage}: {} is {a}, not {b}", curve.measure);
            }
        }
    }
}

/// Codebooks that follow their vectors, with dead codes that restart, as k-means starts them; entropies over a batch; noise.
#[test]
fn ranks_leave_the_tokenizer_that_one_leaves() {
    for quantizer in [
        "vq(codebook: 64, dead_codes: restart)",
        "vq(codebook: 32, init: kmeans, dead_codes: threshold, stochastic_codes: 0.5)",
        "vq(codebook: 32, codebook_update: gradient, dead_codes: anchored, anchor: random, orthogonal_weight: 1.0, orthogonal_active_only: true)",
        "rq(depth: 3, codebook: 24, quantizer_dropout: true, stochastic_codes: 0.5)",
        "lfq(bits: 8)",
    ] {
        let lab = Lab::new(quantizer, "mse()", "", &[]);
        assert_alike(&lab.left_by(2), &lab.left_by(1), quantizer);
    }
}

/// Batch norms, adaptive weights and LeCam's averages are those of the whole batch.
#[test]
fn ranks_leave_the_players_that_one_leaves() {
    let gan = "patch_gan(n_layers: 1, width: 4, start: 2, lecam: 0.1)";
    let lab = Lab::new("rq(depth: 2, codebook: 16)", &format!("[l1(), {gan}]"), "", &[]);
    assert_alike(&lab.left_by(4), &lab.left_by(1), gan);
}

/// Dropout, orders and masks of each image, dropped conditions, and noise are those that it has in the whole batch.
#[test]
fn ranks_leave_the_priors_that_one_leaves() {
    for (quantizer, double_z, prior) in [
        ("vq(codebook: 16)", false, "ar(width: 16, heads: 2, layers: 1, dropout: 0.1)"),
        ("vq(codebook: 16)", false, "maskgit(width: 16, heads: 2, layers: 1)"),
        (
            "kl()",
            true,
            "mar(width: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, head_width: 16, head_layers: 1)",
        ),
    ] {
        let set = format!("autoencoder.double_z={double_z}");
        let lab = Lab::new(quantizer, "mse()", &format!("prior: {prior},"), &[&set]);
        assert_alike(&lab.left_by(2), &lab.left_by(1), prior);
    }
}

/// Where nothing looks across a batch, parts leave what the whole batch leaves, on one rank and on several.
#[test]
fn parts_of_a_batch_leave_what_the_batch_leaves() {
    let left = |parts: usize, size: usize| {
        let set = format!("gradient_accumulation={parts}");
        let set = [format!("tokenizer_training.{set}"), format!("prior_training.{set}")];
        let prior = "prior: ar(width: 16, heads: 2, layers: 1, dropout: 0.1),";
        // Restarts would look across the batch, as would a codebook that moves between depths.
        Lab::new("rq(depth: 2, codebook: 16, shared: false, dead_codes: keep)", "mse()", prior, &[&set[0], &set[1]])
            .left_by(size)
    };
    let whole = left(1, 1);
    assert_alike(&left(4, 1), &whole, "four parts");
    assert_alike(&left(2, 2), &whole, "two parts on two ranks");
}
