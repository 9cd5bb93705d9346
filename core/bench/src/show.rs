//! How figures are shown: lines and tables on a terminal, the table of a page.

use crate::compare::{COLUMNS, Pair, cells, digits, markdown, same_workload, write_between};
use crate::{PeerRun, Row, Run, Workload};
use comfy_table::{CellAlignment, Table, presets};
use rqlab::commands::{Failure, Outcome};
use rqlab::ui::{Ui, thousands};
use rqlab_sdk::Error;
use std::path::Path;

/// Says what a file holds in the lines that were printed when it was timed.
pub(crate) fn show((ours, theirs): (Run, Option<PeerRun>), ui: Ui) -> Result<(Run, Option<PeerRun>), Failure> {
    ui.note(ours.machine.sentence());
    let peers = theirs.as_ref().map(PeerRun::rows).unwrap_or_default();
    for row in &ours.rows {
        ui.line(line(&row.name, row))?;
        let of_it = peers.iter().filter(|peer| same_workload(&row.name, &peer.name));
        of_it.into_iter().try_for_each(|peer| ui.line(line(&peers_name(peer), peer)))?;
    }
    Ok((ours, theirs))
}

/// Names workloads, with what each computes.
pub(crate) fn list(chosen: &[(&str, Workload)], ui: Ui) -> Result<Outcome, Failure> {
    for (name, workload) in chosen {
        let (units, unit) = workload.units();
        let flop = workload.flop().map_or(String::new(), |flop| format!("  {} GFLOP", digits(flop as f64 / 1e9)));
        let parameters =
            workload.parameters().map_or(String::new(), |count| format!("  {} parameters", thousands(count)));
        ui.line(format!("{name:28} {:>10} {unit}{parameters}{flop}", thousands(units as usize)))?;
    }
    Ok(Outcome::Done)
}

/// How a line names a row of the peers, so that it does not look like ours: by the peer, if there are several.
pub(crate) fn peers_name(row: &Row) -> String {
    format!("  peer {}", row.name.split_once('/').map_or(row.name.as_str(), |(_, peer)| peer))
}

/// The line of a row.
pub(crate) fn line(name: &str, row: &Row) -> String {
    let share = row.peak_fraction.map_or(String::new(), |share| format!("  {:.0} % of the peak", 100.0 * share));
    format!(
        "{name:34} median {:>10.3} ms  min {:>10.3} ms  cpu {:>10.3} ms  {:>11} {:11} rss {:>5.0} MiB  others {:>2.0} %{share}",
        row.median_ms,
        row.min_ms,
        row.cpu_ms,
        digits(row.throughput),
        row.unit,
        row.peak_rss_mib,
        100.0 * row.other_cpu_fraction
    )
}

/// The pairs for a terminal.
pub(crate) fn table(pairs: &[Pair]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(COLUMNS);
    table.add_rows(pairs.iter().map(cells));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The table of a page: pairs if there are any, or our rows alone.
pub(crate) fn write_page(path: &Path, ours: &Run, pairs: &[Pair]) -> Result<(), Error> {
    let machine = ours.machine.sentence();
    if pairs.is_empty() {
        let columns = ["workload", "median, ms", "units a second", "memory, MiB"];
        let row = |row: &Row| {
            let speed = format!("{} {}", digits(row.throughput), row.unit);
            vec![row.name.clone(), digits(row.median_ms), speed, format!("{:.0}", row.peak_rss_mib)]
        };
        let rows: Vec<_> = ours.rows.iter().map(row).collect();
        return write_between(path, "workloads", &format!("{machine}\n\n{}", markdown(&columns, &rows)));
    }
    let rows: Vec<_> = pairs.iter().map(|pair| cells(pair).to_vec()).collect();
    write_between(path, "workloads", &format!("{machine}\n\n{}", markdown(&COLUMNS, &rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_peers_are_told_from_ours() {
        let names = ["gelu_1m", "rq_encode_64x1024/faiss_flat", "import_torch"];
        let named = names.map(|name| peers_name(&Row { name: name.to_owned(), ..Row::default() }));
        assert_eq!(named, ["  peer gelu_1m", "  peer faiss_flat", "  peer import_torch"]);
    }
}
