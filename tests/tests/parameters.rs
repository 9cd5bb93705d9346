//! Parameters are counted alike in the plan and on the page: K x C for a codebook, whatever moves it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};

/// Rows of cells, with the head's words to find columns by.
fn column(head: &[&str], row: &[&str], name: &str) -> usize {
    let place = head.iter().position(|word| *word == name).unwrap_or_else(|| panic!("no `{name}` in {head:?}"));
    row[place].replace(',', "").parse().unwrap_or_else(|_| panic!("`{name}` in {row:?}"))
}

#[test]
fn a_codebook_has_as_many_parameters_in_the_plan_as_on_the_page() {
    let lab = Lab::new().unwrap();
    let tiny = lab.read("tiny.ron").unwrap();
    let [axes, seeds] = ["    axes:", "    seeds:"].map(|setting| tiny.find(setting).unwrap());
    lab.write("one.ron", format!("{}{}", &tiny[..axes], &tiny[seeds..])).unwrap();
    let run = |command: &str, quantizer: &str| {
        let mut command = lab.command(command).unwrap();
        let said = Said::from(command.args(["--set", "prior=None", "--set", quantizer]).output().unwrap());
        assert_eq!(said.code, Some(0), "{quantizer}\n{}\n{}", said.out, said.err);
        said.out
    };
    // Latents have 8 channels. An average keeps a sum for each number of a code, and a count for each code.
    for (name, quantizer, codebooks, buffers) in [
        ("ema", "vq(codebook: 16)", 16 * 8, 16 * 8 + 16),
        ("gradient", "vq(codebook: 16, codebook_update: gradient)", 16 * 8, 0),
        ("shared", "rq(depth: 3, codebook: 16)", 16 * 8, 16 * 8 + 16),
        ("separate", "rq(depth: 3, codebooks: [16, 8, 4], shared: false)", 28 * 8, 28 * 8 + 28),
    ] {
        let set = format!("quantizer={quantizer}");
        let planned = run("plan one.ron --runs runs", &set);
        let lines: Vec<&str> = planned.lines().collect();
        let head = lines.iter().position(|line| line.contains("bits/image")).unwrap();
        // Cells of several words lie before those that are asked for.
        let [head, row] = [lines[head], lines[head + 1]].map(|line| line.split_whitespace().rev().collect::<Vec<_>>());
        let planned = |name| column(&head, &row, name);
        assert_eq!(planned("quantizer"), codebooks, "{name}");
        if buffers > 0 {
            assert_eq!(planned("buffers"), buffers, "{name}");
        } else {
            assert!(!head.contains(&"buffers"), "{head:?}");
        }

        run(&format!("sweep one.ron --runs runs --out out --name {name}"), &set);
        let table = lab.read(&format!("out/{name}/results.csv")).unwrap();
        let [head, row] = [0, 1].map(|line| table.lines().nth(line).unwrap().split(',').collect::<Vec<_>>());
        let measured = |name| row[head.iter().position(|word| *word == name).unwrap()].parse::<f64>().unwrap() as usize;
        assert_eq!(measured("tokenizer_parameters"), planned("autoencoder") + codebooks, "{name}");
        assert_eq!(measured("tokenizer_buffers"), buffers, "{name}");
    }
}
