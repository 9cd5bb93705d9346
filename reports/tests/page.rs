//! The page: whole, self-contained, and safe to show whatever the experiment is called.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may fail loudly")]

use std::fs;

use rqlab_reports::{Axis, Curve, Fact, FileNote, Index, LeftOut, Quantity, Reading, Results, Status, Trial, write};

#[path = "../examples/demo/invent.rs"]
mod invent;

const SECTIONS: [&str; 13] = [
    "verdicts",
    "matrix",
    "rate-distortion",
    "effects",
    "codebook",
    "priors",
    "pictures",
    "curves",
    "cost",
    "trials",
    "failures",
    "definitions",
    "provenance",
];

fn page(name: &str, results: &Results) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::read_to_string(write(results, &folder).unwrap().page).unwrap()
}

/// Every element that opens must close, in order; returns the identifiers.
fn well_formed(page: &str) -> Vec<String> {
    const VOID: [&str; 5] = ["meta", "img", "br", "input", "link"];
    let mut open: Vec<String> = Vec::new();
    let mut identifiers = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        // A `>` within quotes does not end a tag.
        let mut quoted = false;
        let end = rest
            .find(|c| {
                quoted ^= c == '"';
                c == '>' && !quoted
            })
            .unwrap();
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of order before …{:.80}", rest);
            continue;
        }
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        assert!(!name.is_empty(), "a stray < before …{tag:.80}");
        if let Some((_, id)) = tag.split_once(" id=\"") {
            identifiers.push(id.split('"').next().unwrap().to_owned());
        }
        if matches!(&*name, "script" | "style") {
            rest = rest.split_once(&format!("</{name}>")).unwrap().1;
        } else if !tag.ends_with('/') && !VOID.contains(&&*name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    identifiers
}

#[test]
fn the_demo_is_well_formed_and_every_link_has_its_target() {
    let page = page("demo", &invent::results().unwrap());
    let identifiers = well_formed(&page);
    for section in SECTIONS {
        assert!(page.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    let mut unique = identifiers.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), identifiers.len(), "identifiers repeat");
    for link in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(identifiers.iter().any(|id| id == link), "nothing is called {link}");
    }
}

#[test]
fn results_without_anything_still_make_every_section() {
    let page = page("empty", &Results::default());
    well_formed(&page);
    for section in SECTIONS {
        assert!(page.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
}

#[test]
fn equal_results_make_equal_pages() {
    let results = invent::results().unwrap();
    assert!(page("once", &results) == page("again", &results), "two renderings differ");
}

#[test]
fn the_page_loads_nothing_and_stays_small() {
    let page = page("small", &invent::results().unwrap());
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    for load in ["http://", "https://", "@import", "url(", "<link", "<iframe", " srcset="] {
        assert!(!page.contains(load), "{load}");
    }
    for source in page.split(" src=\"").skip(1) {
        assert!(source.starts_with("data:image/"), "{source:.60}");
    }
    let script: usize = page.split("<script>").skip(1).map(|rest| rest.find("</script>").unwrap()).sum();
    assert!(script < 10_000, "{script} bytes of script");
}

#[test]
fn large_pictures_keep_the_page_within_its_budget() {
    let mut results = invent::results().unwrap();
    let mut state = 1_u32;
    for example in results.trials.iter_mut().flat_map(|trial| &mut trial.examples) {
        // Noise does not compress: the worst case for an encoder.
        let mut noise = || -> Vec<u8> {
            let step = |state: &mut u32| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (*state >> 24) as u8
            };
            (0..256 * 256 * 3).map(|_| step(&mut state)).collect()
        };
        let image = rqlab_reports::Image::new(256, 256, noise()).unwrap();
        let count = example.reconstructions.len();
        (example.original, example.reconstructions) = (image.clone(), vec![image; count]);
    }
    let page = page("large", &results);
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
}

#[test]
fn unfinished_trials_are_counted_named_and_explained() {
    let results = invent::results().unwrap();
    let page = page("unfinished", &results);
    assert!(page.contains("24/26 trials done"));
    assert!(page.contains("1 failed</a>, 1 missing"));
    let failed = results.trials.iter().find(|trial| trial.status == Status::Failed).unwrap();
    assert!(page.contains(&format!("<article class=\"failure\" id=\"f-{}\">", failed.id)));
    assert!(page.contains(failed.error.as_deref().unwrap()));
    assert!(page.contains("&lt;stopped &amp; kept"), "the log's tail is shown, escaped");
}

#[test]
fn every_figure_says_what_it_is() {
    let page = page("figures", &invent::results().unwrap());
    let charts: Vec<&str> = page.split("<svg id=").skip(1).collect();
    assert!(charts.len() > 15, "{} charts", charts.len());
    for chart in charts {
        let chart = chart.split("</figure>").next().unwrap();
        for part in ["role=\"img\"", "<title id=", "<desc id=", "<figcaption>", "<details class=\"data\">", "<table>"] {
            assert!(chart.contains(part), "{part} is missing in {chart:.120}");
        }
        // What the style is to decide must not be fixed in the drawing.
        assert!(!chart.contains("=\"#01"), "a sentinel colour is left in {chart:.120}");
    }
}

#[test]
fn text_of_the_experiment_is_never_markup() {
    let evil = "<script>alert(\"1\")</script>&'";
    let mut results = invent::results().unwrap();
    results.name = evil.into();
    results.question = evil.into();
    results.file =
        FileNote { path: evil.into(), about: evil.into(), finding: Some(evil.into()), date: Some(evil.into()) };
    results.folder = Some(evil.into());
    results.changed = vec![evil.into()];
    results.command = evil.into();
    results.created = Some(evil.into());
    results.provenance[0].key = evil.into();
    results.provenance[0].values = vec![evil.into()];
    results.definitions[0].name = evil.into();
    results.definitions[0].text = evil.into();
    results.axes[2].label = evil.into();
    results.axes[2].values.push(evil.into());
    for trial in &mut results.trials {
        trial.name = evil.into();
        trial.command = evil.into();
        trial.config = evil.into();
        trial.error = Some(evil.into());
        trial.setup.push(Fact::new(evil, evil));
        trial.left_out.push(LeftOut { measures: evil.into(), reason: evil.into() });
        trial.log_tail = evil.into();
        trial.readings.push(Reading::new(evil, [], 1.0));
        for curve in &mut trial.curves {
            curve.stage = evil.into();
        }
        for example in &mut trial.examples {
            example.label = evil.into();
        }
        for sample in &mut trial.samples {
            sample.label = evil.into();
        }
    }
    results.trials[0].axes.insert("quantizer.shared".into(), evil.into());
    let page = page("evil", &results);
    well_formed(&page);
    assert!(!page.contains("<script>alert"));
    assert!(!page.contains("alert(\"1\")"));
}

/// One finished trial.
fn alone(readings: Vec<Reading>) -> Results {
    Results {
        name: "one".into(),
        headline: Some(Quantity::plain("mse")),
        axes: vec![Axis { path: "quantizer.depth".into(), label: String::new(), values: vec![1_i64.into()] }],
        trials: vec![Trial { id: "0123abcd".into(), status: Status::Done, readings, ..Trial::default() }],
        ..Results::default()
    }
}

#[test]
fn one_trial_alone_makes_a_page() {
    let page = page("one", &alone(vec![Reading::new("mse", [], 0.5), Reading::new("bits_per_image", [], 384.0)]));
    well_formed(&page);
    assert!(page.contains("1/1 trials done"));
}

#[test]
fn the_page_tells_who_computed_apart_from_who_rendered() {
    let mut results = invent::results().unwrap();
    let computed = page("computed", &results);
    let section = computed.split("<section id=\"provenance\"").nth(1).unwrap();
    for site in ["id=\"o-A\"", "Xeon Platinum 8481C, 8 cores", "id=\"o-B\"", "Ryzen 5 5600X, 6 cores"] {
        assert!(section.contains(site), "{site}");
    }
    assert!(section.contains("Where 1 trial was computed is not recorded"));
    assert!(computed.contains("computed on 2 machines or programs, 1 not recorded"));
    // Rendered elsewhere, the page says so, and all else stays as it was.
    let rendered = results.rendered.as_mut().unwrap();
    assert_eq!(section.matches(&rendered.processor).count(), 1);
    let before = std::mem::replace(&mut rendered.processor, "another processor".into());
    assert_eq!(page("elsewhere", &results), computed.replace(&before, "another processor"));
    for trial in &mut results.trials {
        trial.origins.clear();
    }
    let old = page("old", &results);
    assert!(old.contains("where computed: not recorded"));
    assert!(old.contains("Not recorded: the results come from a version that did not record it."));
}

#[test]
fn levels_have_charts_labels_and_codes_of_their_own() {
    let page = page("levels", &invent::results().unwrap());
    for part in [
        "codebook usage (level 1, depth 2)",
        "title=\"level1_usage_2\"",
        "fig-training-usage-1",
        "fig-training-usage-2",
        "codes, level 2",
        "level.depth",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn levels_of_one_depth_each_stand_in_one_chart() {
    let mut results = alone(vec![]);
    let trial = &mut results.trials[0];
    for level in 1..=2 {
        let at = vec![Index::Level(level), Index::Depth(1)];
        trial.readings.push(Reading::new("usage", at.iter().cloned(), 0.5));
        let (stage, measure) = ("tokenizer".into(), "usage".into());
        trial.curves.push(Curve { stage, measure, at, steps: vec![1, 2], values: vec![0.1, 0.5] });
    }
    let page = page("shallow", &results);
    assert!(page.contains("Codebook usage by level and depth."));
    assert!(page.contains("id=\"fig-training-usage-levels\""));
    assert!(page.contains("level 2, depth 1"), "each line is told in the key");
}

#[test]
fn rates_of_codes_and_of_vectors_have_charts_of_their_own() {
    let mut results = alone(vec![Reading::new("psnr", [], 20.0), Reading::new("bits_per_image", [], 384.0)]);
    // Two points make no front: three of each.
    let rates = ["bits_per_image", "bits_per_image", "kl_bits_per_image", "kl_bits_per_image", "kl_bits_per_image"];
    for (depth, rate) in (2_u32..).zip(rates) {
        let readings =
            vec![Reading::new("psnr", [], 20.0 + f64::from(depth)), Reading::new(rate, [], 100.0 * f64::from(depth))];
        let axes = [("quantizer.depth".to_owned(), i64::from(depth).into())].into();
        results.trials.push(Trial { id: format!("89abcde{depth}"), axes, readings, ..results.trials[0].clone() });
    }
    let before = page("rates", &results);
    for part in ["fig-bits-per-image-psnr", "fig-kl-bits-per-image-psnr", "numbers of the two are not equal rates"] {
        assert!(before.contains(part), "{part}");
    }
    let across = "Lines across: what was trained without a bottleneck";
    assert!(!before.contains(across));
    // What has no rate has no place on a scale of bits: it is the ceiling of both.
    let axes = [("quantizer.depth".to_owned(), 7_i64.into())].into();
    let readings = vec![Reading::new("psnr", [], 30.0)];
    results.trials.push(Trial { id: "fedcba98".into(), axes, readings, ..results.trials[0].clone() });
    assert_eq!(page("ceiling", &results).matches(across).count(), 2);
}

#[test]
fn the_order_of_readings_does_not_matter() {
    let mut results = invent::results().unwrap();
    let before = page("forward", &results);
    for trial in &mut results.trials {
        trial.readings.reverse();
    }
    assert!(page("backward", &results) == before);
}

#[test]
fn the_file_speaks_apart_and_its_finding_only_for_its_own_settings() {
    let mut results = alone(vec![Reading::new("mse", [], 0.5)]);
    results.question = "What do 4 codes buy?".into();
    results.file = FileNote {
        path: "experiments/one.ron".into(),
        about: "Why it is asked.".into(),
        finding: Some("one seed: 0.68 dB.".into()),
        date: Some("2026-11-28".into()),
    };
    let own = page("own", &results);
    well_formed(&own);
    assert!(own.contains("<h1>What do 4 codes buy?</h1>"));
    let (_, file) = own.split_once("<details class=\"file\"").unwrap();
    for part in
        ["experiments/one.ron", "not from these results", "Why it is asked.", "2026-11-28", "one seed: 0.68 dB."]
    {
        assert!(file.contains(part), "{part}");
    }
    results.changed = vec!["quantizer.depth=8".into()];
    let changed = page("changed", &results);
    well_formed(&changed);
    assert!(!changed.contains("0.68 dB"), "found with other settings");
    for part in [
        "<h1>one</h1>",
        "Set otherwise than in the file: <code>quantizer.depth=8</code>",
        "It asks: What do 4 codes buy?",
    ] {
        assert!(changed.contains(part), "{part}");
    }
    // A question without numbers is asked of any settings.
    results.question = "What does depth buy?".into();
    assert!(page("asked", &results).contains("<h1>What does depth buy?</h1>"));
}

#[test]
fn the_setup_says_what_is_common_and_by_which_axis_the_rest_differs() {
    let mut results = alone(vec![Reading::new("classifier_accuracy", [], 0.653)]);
    results.axes[0].values.push(4_i64.into());
    let other = Trial {
        id: "89abcdef".into(),
        axes: [("quantizer.depth".to_owned(), 4_i64.into())].into(),
        ..results.trials[0].clone()
    };
    results.trials[0].axes = [("quantizer.depth".to_owned(), 1_i64.into())].into();
    results.trials.push(other);
    for (trial, steps) in results.trials.iter_mut().zip(["400 steps", "800 steps"]) {
        trial.setup = vec![Fact::new("data", "4 classes, 240 + 16 images"), Fact::new("training", steps)];
        trial.setup.extend([Fact::new("splits", "`train` and `<b>`"), Fact::new("odd", "a ` alone")]);
        trial.seed = Some(3);
    }
    results.trials[1].left_out = vec![LeftOut { measures: "speeds".into(), reason: "none was asked for".into() }];
    let page = page("setup", &results);
    well_formed(&page);
    for part in [
        "<th scope=\"row\">data</th><td><div>4 classes, 240 + 16 images</div></td>",
        "<div><code>train</code> and <code>&lt;b&gt;</code></div>",
        "<div>a ` alone</div>",
        "<div>depth 1: 400 steps</div><div>depth 4: 800 steps</div>",
        "<th scope=\"row\">seeds</th><td><div>3</div></td>",
        "right on 65.3% of the test images",
        "speeds, in 1 of 2 trials: none was asked for",
    ] {
        assert!(page.contains(part), "{part} in\n{}", page.split("<nav").next().unwrap());
    }
}

#[test]
fn warnings_stand_before_all_that_the_trials_seem_to_say() {
    let page = page("warned", &alone(vec![Reading::new("perplexity", [Index::Depth(1)], 1.0)]));
    let head = page.split("<section id=\"verdicts\"").next().unwrap();
    for part in ["A codebook has collapsed", "perplexity 1.0 at depth 1", "Too few seeds", "One seed, fewer than 3"] {
        assert!(head.contains(part), "{part}");
    }
    assert!(head.contains("<a href=\"#warnings\">2 warnings</a>"));
}

#[test]
fn a_fact_that_some_have_names_them_once() {
    let mut results = alone(vec![Reading::new("psnr", [], 20.0)]);
    for depth in 2..=4_i64 {
        let axes = [("quantizer.depth".to_owned(), depth.into())].into();
        results.trials.push(Trial { id: format!("89abcde{depth}"), axes, ..results.trials[0].clone() });
    }
    results.axes[0].values = (1..=4_i64).map(Into::into).collect();
    for trial in &mut results.trials[1..] {
        trial.setup.push(Fact::new("prior", "ar, on 16 training images"));
    }
    let page = page("some", &results);
    assert!(page.contains("ar, on 16 training images (in 3 of 4 configurations: depth 2; depth 3; and 1 more)"));
}
