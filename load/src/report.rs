//! Tables for people.

use crate::session;
use crate::trace;
use crate::values::Figure;

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// Columns as wide as their widest cell; the first `left` of them to the left, figures to the right.
pub fn table(header: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}

pub fn values(figures: &[Figure]) -> String {
    let header = [
        "transport",
        "operation",
        "size",
        "conns",
        "depth",
        "GB/s",
        "op/s",
        "p50 us",
        "p90 us",
        "p99 us",
        "p99.9 us",
        "client CPU s/GB",
        "server CPU s/GB",
    ];
    let rows = figures.iter().map(|figure| {
        let size = match figure.values_per_operation {
            1 => figure.value_size_bytes.to_string(),
            count => format!("{count} x {}", figure.value_size_bytes),
        };
        let latency = &figure.latency_us;
        vec![
            figure.transport.name().to_owned(),
            figure.operation.name().to_owned(),
            size,
            figure.connections.to_string(),
            figure.depth.to_string(),
            format!("{:.3}", figure.gb_per_s),
            format!("{:.0}", figure.operations_per_s),
            format!("{:.0}", latency.p50),
            format!("{:.0}", latency.p90),
            format!("{:.0}", latency.p99),
            format!("{:.0}", latency.p999),
            format!("{:.2}", figure.client_cpu_s_per_gb),
            figure.server_cpu_s_per_gb.map_or("-".to_owned(), |seconds| format!("{seconds:.2}")),
        ]
    });
    table(&header, &rows.collect::<Vec<_>>(), 3)
}

pub fn sessions(figures: &[session::Figure]) -> String {
    let header =
        ["tokens", "MB", "step", "plugin ms", "min", "max", "first", "file ms", "times", "the file's"];
    let rows = figures.iter().map(|figure| {
        vec![
            figure.tokens.to_string(),
            format!("{:.2}", figure.size_bytes as f64 / 1e6),
            figure.step.to_owned(),
            format!("{:.2}", figure.ms),
            format!("{:.2}", figure.ms_min),
            format!("{:.2}", figure.ms_max),
            format!("{:.2}", figure.first_ms),
            format!("{:.2}", figure.file_ms),
            format!("{:.2}", figure.factor),
            figure.file.to_owned(),
        ]
    });
    table(&header, &rows.collect::<Vec<_>>(), 0)
}

pub fn trace(figures: &trace::Figures) -> String {
    let latency = &figures.request_latency_us;
    let cpu = match figures.server_cpu_s_per_gb {
        Some(server) => format!("{:.2} client, {server:.2} server", figures.client_cpu_s_per_gb),
        None => format!("{:.2} client", figures.client_cpu_s_per_gb),
    };
    let lines = [
        ("warm-up requests", figures.requests_warm_up.to_string()),
        ("requests", figures.requests.to_string()),
        ("blocks", format!("{} of {}", figures.blocks, figures.value_size_bytes)),
        ("hits", figures.hits.to_string()),
        ("misses", figures.misses.to_string()),
        (
            "hit rate",
            format!(
                "{:.2} % (without bounds {:.2} %)",
                100.0 * figures.hit_rate,
                100.0 * figures.hit_rate_max
            ),
        ),
        ("time", format!("{:.2} s, {:.0} blocks/s", figures.seconds, figures.blocks_per_s)),
        ("read", format!("{:.3} GB/s", figures.read_gb_per_s)),
        ("written", format!("{:.3} GB/s", figures.written_gb_per_s)),
        (
            "request latency",
            format!("p50 {:.0} us, p90 {:.0} us, p99 {:.0} us", latency.p50, latency.p90, latency.p99),
        ),
        ("CPU s/GB", cpu),
    ];
    lines.map(|(name, value)| format!("{name:<16} {value}\n")).concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "5".to_owned()]];
        assert_eq!(super::table(&["what", "GB/s"], &rows, 1), "what  GB/s\na       10\nlong     5\n");
    }
}
