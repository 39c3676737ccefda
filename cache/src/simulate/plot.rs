//! The outcome as a picture: hit rates, the origin's load, starts and invocations over time,
//! with a line at every event.

use super::outcome::{Outcome, Point};
use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement, RGBColor,
    SVGBackend, WHITE,
};
use std::path::{Path, PathBuf};

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 900;
const BLUE: RGBColor = RGBColor(31, 119, 180);
const GREEN: RGBColor = RGBColor(44, 160, 44);
const RED: RGBColor = RGBColor(214, 39, 40);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// A plot that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The file cannot be written.
    #[error("cannot write the plot to {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The picture cannot be drawn.
    #[error("cannot draw the plot: {0}")]
    Draw(String),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Writes the outcome's series as an SVG picture.
///
/// # Errors
/// [`PlotError`] if the file cannot be written.
pub fn plot(outcome: &Outcome, path: &Path) -> Result<(), PlotError> {
    let svg = draw(outcome)?;
    std::fs::write(path, svg).map_err(|source| PlotError::Write { path: path.into(), source })
}

fn draw(outcome: &Outcome) -> Result<String, PlotError> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    let wrong = |error: &dyn std::fmt::Display| PlotError::Draw(error.to_string());
    root.fill(&WHITE).map_err(|error| wrong(&error))?;
    let bucket = outcome.scenario.run.bucket_s;
    let line = |name, colour, value: &dyn Fn(&Point) -> Option<f64>| -> Line {
        let points = outcome.series.iter().filter_map(|point| Some((point.at_s, value(point)?)));
        (name, colour, points.collect())
    };
    let percent = |point: &Point, rate: f64| (point.reads.total() > 0).then_some(100.0 * rate);
    let rates = [
        line("end to end", GREEN, &|point| percent(point, point.reads.hit_rate())),
        line("own cache", BLUE, &|point| percent(point, point.reads.local_rate())),
    ];
    let origin = [line("origin requests/s", RED, &|point| Some(point.origin_requests as f64 / bucket))];
    let sandboxes = [
        line("starts under way", BLUE, &|point| Some(f64::from(point.starting))),
        line("starts/s rejected or failed", RED, &|point| Some(point.starts.unsuccessful() as f64 / bucket)),
        line("starts/s completed", GREEN, &|point| Some(point.starts.completed as f64 / bucket)),
    ];
    let areas = root.split_evenly((3, 1));
    let panels: [(&str, &[Line], Option<f64>); 3] = [
        ("hit rate in %", &rates, Some(100.0)),
        ("origin requests per second", &origin, None),
        ("sandboxes", &sandboxes, None),
    ];
    for (area, (title, lines, top)) in areas.iter().zip(panels) {
        panel(area, outcome, title, lines, top).map_err(|error| wrong(&error))?;
    }
    root.present().map_err(|error| wrong(&error))?;
    drop(areas);
    drop(root);
    Ok(svg)
}

fn panel(
    area: &Area<'_>,
    outcome: &Outcome,
    title: &str,
    lines: &[Line],
    top: Option<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let highest = lines.iter().flat_map(|(_, _, points)| points).map(|&(_, y)| y).fold(1.0, f64::max);
    let top = top.unwrap_or(1.05 * highest);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18).into_font())
        .margin(12)
        .margin_right(28)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..outcome.scenario.run.duration_s, 0.0..top)?;
    chart.configure_mesh().x_desc("seconds").light_line_style(WHITE).draw()?;
    for event in &outcome.scenario.events {
        chart.draw_series([PathElement::new(vec![(event.at_s, 0.0), (event.at_s, top)], GREY)])?;
    }
    for (name, colour, points) in lines {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), *colour))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], *colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}
