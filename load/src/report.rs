//! Tables for people.

use crate::values::Figure;

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

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "5".to_owned()]];
        assert_eq!(super::table(&["what", "GB/s"], &rows, 1), "what  GB/s\na       10\nlong     5\n");
    }
}
