//! What `rqlab bench` does: a row per workload, perhaps beside another implementation's; or how cost grows with sizes.

use crate::cli::BenchArgs;
use crate::compare::{self, pairs, same_workload, write_between};
use crate::show::{line, list, peers_name, show, table, write_page};
use crate::{AnyRun, Children, Machine, PeerRun, Peers, Row, Run, Runs, Sampling, Task, Workload};
use crate::{images, measure, prepare, scaling, workloads};
use rqlab::cli::Global;
use rqlab::commands::{Failure, Outcome, load_plugins, open_device, threads};
use rqlab::experiment::Diagnostic;
use rqlab::experiment::diagnostic::nearest;
use rqlab::store::{json, read_json, writable};
use rqlab::ui::Ui;
use rqlab_sdk::Error;
use rqlab_sdk::files;
use rqlab_sdk::tensor::Device;
use std::io::ErrorKind;
use std::path::Path;
use tempfile::TempDir;

/// Times what was asked for.
///
/// # Errors
/// Arguments that name no workload, files that cannot be read or written, a process that fails.
pub fn run(global: &Global, how: &BenchArgs, ui: Ui) -> Result<Outcome, Failure> {
    if let Some(text) = &how.task {
        open_device(global, ui)?;
        return task(global, text, ui);
    }
    let chosen = chosen(&how.only)?;
    if how.list {
        return list(&chosen, ui);
    }
    how.json.as_deref().map_or(Ok(()), expect_writable)?;
    let device = if how.from.is_some() { Device::Cpu } else { open_device(global, ui)? };
    let threads = threads(global);
    let children = Children { plugins: global.plugins.clone(), device: device.to_string() };
    if how.scaling {
        return run_scaling(&children, threads, how, ui);
    }
    let against = how.against.as_deref().map(compare::read_rows).transpose()?;
    let kept = how.from.as_deref().map(|path| kept(path, &how.only, &chosen)).transpose()?;
    if let Some(page) = &how.markdown {
        let names: Vec<&str> = match &kept {
            Some((ours, _)) => ours.rows.iter().map(|row| row.name.as_str()).collect(),
            None => chosen.iter().map(|(name, _)| *name).collect(),
        };
        whole_table(page, &names, against.as_deref().unwrap_or_default())?;
    }
    let (ours, theirs) = match kept {
        Some(kept) => show(kept, ui)?,
        None => time(&chosen, &children, threads, device, how, ui)?,
    };
    if let Some(path) = &how.json {
        let mut runs = vec![AnyRun::Ours(ours.clone())];
        runs.extend(theirs.clone().map(AnyRun::Theirs));
        files::write_given(path, &json(path, &Runs { runs })?)?;
    }
    let theirs = against.unwrap_or_else(|| theirs.as_ref().map(PeerRun::rows).unwrap_or_default());
    let pairs = pairs(&ours.rows, &theirs);
    if !pairs.is_empty() {
        ui.line(format!("\n{}", table(&pairs)))?;
    }
    if let Some(path) = &how.markdown {
        write_page(path, &ours, &pairs)?;
    }
    Ok(Outcome::Done)
}

/// That a file can be written, asked before minutes of measuring and not after them.
fn expect_writable(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let can = match (path.is_dir(), folder.is_dir()) {
        (true, _) => Err(ErrorKind::IsADirectory.into()),
        (false, false) => Err(std::io::Error::new(ErrorKind::NotFound, "its folder does not exist")),
        (false, true) => writable(folder),
    };
    Ok(can.map_err(Error::file(path))?)
}

/// Times each workload, and the peers' right after it if there are peers.
fn time(
    chosen: &[(&str, Workload)],
    children: &Children,
    threads: usize,
    device: Device,
    how: &BenchArgs,
    ui: Ui,
) -> Result<(Run, Option<PeerRun>), Failure> {
    let mut peers = match (&how.peers[..], &how.python) {
        ([], _) | (_, None) => None,
        (folders, Some(python)) => Some(Peers::open(python, folders, device, threads, how.seconds)?),
    };
    if let Some(why) = peers.as_ref().and_then(Peers::unnamed) {
        ui.note(format!(
            "warning: the peers' program cannot say what it is, so that figures are kept without it: {why}"
        ));
    }
    let machine = machine(children, threads, ui)?;
    let peak = machine.peak_gflops;
    let mut ours = Run { machine, rows: Vec::new() };
    for (name, workload) in chosen {
        let files = children.files(workload, threads)?;
        let folder = files.as_ref().map(TempDir::path);
        let workload = &workload.clone().within(folder);
        let row = children.measure(name, workload, Sampling::usual(how.seconds), threads)?;
        let row = Row { peak_fraction: row.gflops.zip(peak).map(|(gflops, peak)| gflops / peak), ..row };
        ui.line(line(&row.name, &row))?;
        ours.rows.push(row);
        if let Some(peers) = &mut peers {
            let (rows, skipped) = peers.measure(name, folder)?;
            rows.iter().try_for_each(|row| ui.line(line(&peers_name(row), row)))?;
            skipped.iter().for_each(|why| ui.note(format!("skipped {why}")));
        }
    }
    Ok((ours, peers.map(Peers::into_run)))
}

/// The runs of a file: of the workloads asked for, if some are.
fn kept(path: &Path, only: &[String], chosen: &[(&str, Workload)]) -> Result<(Run, Option<PeerRun>), Failure> {
    let (mut ours, mut theirs) = compare::read_run(path)?;
    if !only.is_empty() {
        ours.rows.retain(|row| chosen.iter().any(|(name, _)| *name == row.name));
        if let Some(theirs) = &mut theirs {
            theirs.retain(|peer| chosen.iter().any(|(name, _)| same_workload(name, peer)));
        }
        if ours.rows.is_empty() {
            return Err(Diagnostic::error(format!(
                "{} holds no figures of ours for `--only {}`",
                path.display(),
                only.join(",")
            ))
            .into());
        }
    }
    Ok((ours, theirs))
}

/// Refuses to replace the table of a page by one that lacks workloads: of ours, or of those to set beside ours.
fn whole_table(page: &Path, ours: &[&str], against: &[Row]) -> Result<(), Diagnostic> {
    let compared = |name: &str| against.iter().any(|row| same_workload(name, &row.name));
    let alone = !ours.iter().any(|name| compared(name));
    let lacks = |name: &str| !ours.contains(&name) || !(alone || compared(name));
    let missing: Vec<_> = workloads().into_iter().map(|(name, _)| name).filter(|name| lacks(name)).collect();
    if missing.is_empty() || !page.exists() {
        return Ok(());
    }
    Err(Diagnostic::error(format!(
        "the table of {} would lose {} of {} workloads: {}",
        page.display(),
        missing.len(),
        workloads().len(),
        missing.join(", ")
    ))
    .help("give `--markdown` figures of all workloads, or the name of a new file"))
}

/// The machine, before anything is measured on it.
fn machine(children: &Children, threads: usize, ui: Ui) -> Result<Machine, Error> {
    let mut machine = Machine::here(&children.device, threads);
    machine.peak_gflops = children.peak_gflops(threads)?;
    ui.note(machine.sentence());
    if let Some(warning) = machine.warning() {
        ui.diagnostic(&Diagnostic::warning(warning));
    }
    Ok(machine)
}

/// Does what a process was started for.
fn task(global: &Global, text: &str, ui: Ui) -> Result<Outcome, Failure> {
    let task: Task = serde_json::from_str(text).map_err(|e| Error::Data(format!("--task: {e}")))?;
    let said = match &task {
        Task::Measure { name, workload, sampling } => {
            let plugins = match workload {
                // Other processes do the work.
                Workload::StartUp | Workload::Sweep { .. } => rqlab::plugins::Plugins::default(),
                _ => load_plugins(global)?,
            };
            let row = measure(name, workload, prepare(workload, &plugins, &global.plugins)?, *sampling)?;
            serde_json::to_string(&row)
        }
        Task::Write { images, folder } => {
            images::write(images, folder, &load_plugins(global)?)?;
            serde_json::to_string(&())
        }
        Task::Peak => serde_json::to_string(&rqlab_sdk::tensor::peak_flops()),
        Task::Load => {
            load_plugins(global)?;
            serde_json::to_string(&rqlab::jobs::peak_memory_mib().unwrap_or(0.0))
        }
    };
    ui.line(said.map_err(|e| Error::Data(e.to_string()))?)?;
    Ok(Outcome::Done)
}

/// The workloads of these names; of a name that no workload has, those that begin with it. All if nothing is asked for.
fn chosen(only: &[String]) -> Result<Vec<(&'static str, Workload)>, Diagnostic> {
    let all = workloads();
    let names = || all.iter().map(|(name, _)| *name);
    let mut wanted = Vec::new();
    for asked in only {
        let before = wanted.len();
        match names().find(|name| name == asked) {
            Some(name) => wanted.push(name),
            None => wanted.extend(names().filter(|name| name.starts_with(asked.as_str()))),
        }
        if wanted.len() == before {
            let mut error = Diagnostic::error(format!("no workload is called `{asked}` or begins so"));
            error.help.extend(nearest(asked, names()).map(|name| format!("did you mean `{name}`?")));
            return Err(error.help(format!("workloads: {}", names().collect::<Vec<_>>().join(", "))));
        }
    }
    Ok(all.into_iter().filter(|(name, _)| only.is_empty() || wanted.contains(name)).collect())
}

fn run_scaling(children: &Children, threads: usize, how: &BenchArgs, ui: Ui) -> Result<Outcome, Failure> {
    let study = match &how.from {
        Some(path) => read_json(path)?,
        None => scaling::run(children, machine(children, threads, ui)?, |point| Ok::<_, Failure>(ui.line(point)?))?,
    };
    if let Some(path) = &how.json {
        files::write_given(path, &json(path, &study)?)?;
    }
    if let Some(folder) = &how.figures {
        for path in scaling::draw(&study, folder)? {
            ui.note(format!("wrote {}", path.display()));
        }
    }
    if let Some(path) = &how.markdown {
        write_between(path, "scaling", &scaling::tables(&study))?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn names(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        chosen(&only).unwrap_or_default().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_name_means_one_workload_and_a_beginning_all_that_begin_so() {
        assert_eq!(names(&["rq_sample_b1"]), ["rq_sample_b1"]);
        assert_eq!(names(&["rq_sample_b10"]), ["rq_sample_b100"]);
        assert_eq!(names(&["rq_sample"]), ["rq_sample_b1", "rq_sample_b16", "rq_sample_b100"]);
        assert_eq!(
            names(&["start_up", "rq_sample_b1", "rq_sample_b16"]),
            ["rq_sample_b1", "rq_sample_b16", "start_up"]
        );
        assert_eq!(names(&[]).len(), workloads().len());
    }

    #[test]
    fn a_page_keeps_all_workloads_of_its_table() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.md");
        let all: Vec<&str> = workloads().into_iter().map(|(name, _)| name).collect();
        let row = |name: &str| Row { name: name.to_owned(), ..Row::default() };
        assert_eq!(whole_table(&page, &["gelu_1m"], &[]), Ok(()), "a new page loses nothing");
        std::fs::write(&page, "").unwrap();
        assert_eq!(whole_table(&page, &all, &[]), Ok(()));
        let said = |ours: &[&str], against: &[Row]| whole_table(&page, ours, against).unwrap_err().message;
        assert!(said(&all[1..], &[]).ends_with(&format!("lose 1 of {} workloads: {}", all.len(), all[0])));
        assert!(said(&all, &[row(all[0])]).contains(&format!("lose {} of", all.len() - 1)));
    }

    #[test]
    fn figures_of_a_file_are_those_asked_for_on_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.json");
        let row = |name: &str| Row { name: name.to_owned(), ..Row::default() };
        let ours = Run { machine: Machine::here("cpu", 1), rows: vec![row("gelu_1m"), row("start_up")] };
        let mut theirs: PeerRun = serde_json::from_str(r#"{"rows": []}"#).unwrap();
        for name in ["gelu_1m", "import_torch"] {
            theirs.push(serde_json::to_value(row(name)).unwrap());
        }
        rqlab::store::write_json(&path, &Runs { runs: vec![AnyRun::Ours(ours), AnyRun::Theirs(theirs)] }).unwrap();
        let read = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            let (ours, theirs) = kept(&path, &only, &chosen(&only).unwrap()).ok()?;
            let names = |rows: Vec<Row>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>().join(" ");
            Some((names(ours.rows), names(theirs.unwrap().rows())))
        };
        assert_eq!(read(&[]), Some(("gelu_1m start_up".into(), "gelu_1m import_torch".into())));
        assert_eq!(read(&["start_up"]), Some(("start_up".into(), "import_torch".into())));
        assert_eq!(read(&["rq_sample"]), None, "none of them is there");
    }

    #[test]
    fn an_unknown_workload_comes_with_the_nearest_and_all_others() {
        let said = chosen(&["rq_sampl_b1".to_owned()]).map(|_| ()).map_err(|error| error.render(false));
        assert!(said.as_ref().is_err_and(|text| text.contains("did you mean `rq_sample_b1`?")), "{said:?}");
        assert!(said.as_ref().is_err_and(|text| text.contains("rq_sample_b1, rq_sample_b16")), "{said:?}");
    }
}
