//! Charts of what was measured, as SVG: throughput above, latency below, by the size of values.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::size::Size;
use crate::values::Figure;

const SIZE_PIXELS: (u32, u32) = (1100, 1000);
const MARGIN_PIXELS: u32 = 12;
const LABELS_PIXELS: u32 = 60;
/// The names of the series stand beside the plot, where no line is under them.
const NAMES_PIXELS: u32 = 230;
const PLOT_PIXELS: u32 = SIZE_PIXELS.0 - MARGIN_PIXELS - LABELS_PIXELS - NAMES_PIXELS;
/// Of the lines between those that have a number.
const FAINT: RGBAColor = RGBAColor(0, 0, 0, 0.05);
/// Told apart by people who see colours differently (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];

/// The figures that one line joins.
struct Series {
    name: String,
    /// By size: bytes, GB/s, p50 and p99 in microseconds.
    points: Vec<(f64, f64, f64, f64)>,
}

fn series(figures: &[Figure]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for figure in figures {
        let name = format!(
            "{} {}, {} connections",
            figure.transport.name(),
            figure.operation.name(),
            figure.connections
        );
        let latency = &figure.latency_us;
        let point = (figure.value_size_bytes.0 as f64, figure.gb_per_s, latency.p50, latency.p99);
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name, points: vec![point] }),
        }
    }
    all
}

pub fn values(path: &Path, figures: &[Figure]) -> Result<()> {
    let all = series(figures);
    let mut text = String::new();
    draw(&all, &mut text).map_err(|error| anyhow!("{error}"))?;
    std::fs::write(path, text)?;
    Ok(())
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw<'a>(all: &[Series], text: &'a mut String) -> Drawn<'a> {
    let root = SVGBackend::with_string(text, SIZE_PIXELS).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(SIZE_PIXELS.1 / 2);
    let points = || all.iter().flat_map(|series| &series.points);
    let sizes =
        points().fold((f64::MAX, 1.0f64), |(least, most), point| (least.min(point.0), most.max(point.0)));
    // A range of one size has no width.
    let sizes = (sizes.0 / 1.2)..(sizes.1 * 1.2);
    let fastest = points().map(|point| point.1).fold(0.1, f64::max);
    let mut chart = ChartBuilder::on(&above)
        .caption("throughput, GB/s", ("sans-serif", 20))
        .margin(MARGIN_PIXELS)
        .margin_right(NAMES_PIXELS)
        .x_label_area_size(36)
        .y_label_area_size(LABELS_PIXELS)
        .build_cartesian_2d(sizes.clone().log_scale().base(2.0), 0.0..fastest * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("size of a value")
        .x_label_formatter(&|size| Size(size.round() as u64).to_string())
        .light_line_style(FAINT)
        .draw()?;
    for (series, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let line = series.points.iter().map(|point| (point.0, point.1));
        let drawn = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?;
        drawn
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let beside = SeriesLabelPosition::Coordinate((PLOT_PIXELS + MARGIN_PIXELS) as i32, 0);
    chart.configure_series_labels().position(beside).background_style(WHITE).draw()?;
    draw_latencies(all, &below, sizes)?;
    root.present()
}

fn draw_latencies<'a>(
    all: &[Series],
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    sizes: std::ops::Range<f64>,
) -> Drawn<'a> {
    let points = || all.iter().flat_map(|series| &series.points);
    let least = points().map(|point| point.2).fold(f64::MAX, f64::min).max(1.0);
    let most = points().map(|point| point.3).fold(least, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("latency of an operation, us: p50, and dotted p99", ("sans-serif", 20))
        .margin(MARGIN_PIXELS)
        .margin_right(NAMES_PIXELS)
        .x_label_area_size(36)
        .y_label_area_size(LABELS_PIXELS)
        .build_cartesian_2d(sizes.log_scale().base(2.0), (least / 1.5..most * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("size of a value")
        .x_label_formatter(&|size| Size(size.round() as u64).to_string())
        .y_label_formatter(&|latency_us| format!("{latency_us:.0}"))
        .light_line_style(FAINT)
        .draw()?;
    for (series, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let middle = series.points.iter().map(|point| (point.0, point.2));
        chart.draw_series(LineSeries::new(middle, colour.stroke_width(2)))?;
        let high = series.points.iter().map(|point| (point.0, point.3));
        chart.draw_series(DashedLineSeries::new(high, 3, 4, colour.stroke_width(1)))?;
    }
    Ok(())
}
