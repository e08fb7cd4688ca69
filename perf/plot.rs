//! Draws results of `softnet bench --json` as docs/performance.svg: for each scenario the CPU
//! time per frame of every forwarder as a ratio to the bare loop, median and quartiles.
//!
//!     cargo run --release --example plot -- perf/results/2026-11/MACHINE.jsonl docs/performance.svg

use std::error::Error;
use std::fs::File;
use std::io::BufReader;

use plotters::prelude::*;
use softnet::bench::Subject;
use softnet::bench::figure::{Figure, to_bare};
use softnet::bench::report::{self, Results};
use softnet::bench::scenario;
use softnet::bench::statistics::Quartiles;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plot RESULTS.jsonl PICTURE.svg".into());
    };
    let results = report::read(BufReader::new(File::open(from)?))?;
    draw(&results, &to)
}

fn draw(results: &Results, path: &str) -> Result<(), Box<dyn Error>> {
    let rows: Vec<String> = scenario::all()
        .into_iter()
        .map(|scenario| scenario.name)
        .filter(|name| {
            SUBJECTS
                .iter()
                .any(|(subject, _)| ratios(results, name, *subject).is_some())
        })
        .collect();
    let height = u32::try_from(rows.len())? * ROW + 150;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let system = &results.system;
    let title = format!(
        "CPU time per frame, bare loop = 1 ({}, {} cores)",
        system.cpu, system.cores
    );
    area.draw(&Text::new(title, (LEFT, 20), ("sans-serif", 16)))?;
    for (index, (subject, color)) in SUBJECTS.iter().enumerate() {
        let x = LEFT + 140 * i32::try_from(index)?;
        area.draw(&Circle::new((x + 5, 52), 4, color.filled()))?;
        area.draw(&Text::new(
            subject.label(),
            (x + 15, 45),
            ("sans-serif", 14),
        ))?;
    }

    let bottom = TOP + i32::try_from(rows.len() * ROW as usize)?;
    for tenths in (5..=20).step_by(1) {
        let at = x(f64::from(tenths) / 10.0);
        let is_one = tenths == 10;
        let color = if is_one {
            BLACK.mix(0.8)
        } else {
            BLACK.mix(0.15)
        };
        area.draw(&PathElement::new([(at, TOP - 8), (at, bottom)], color))?;
        if tenths % 5 == 0 || is_one {
            let label = format!("{:.1}", f64::from(tenths) / 10.0);
            area.draw(&Text::new(label, (at - 9, bottom + 6), ("sans-serif", 13)))?;
        }
    }
    for (row, name) in rows.iter().enumerate() {
        let top = TOP + i32::try_from(row * ROW as usize)?;
        area.draw(&Text::new(name.as_str(), (10, top + 6), ("sans-serif", 13)))?;
        for (index, (subject, color)) in SUBJECTS.iter().enumerate() {
            let Some(quartiles) = ratios(results, name, *subject) else {
                continue;
            };
            let y = top + 4 + 6 * i32::try_from(index)?;
            let line = [(x(quartiles.lower), y), (x(quartiles.upper), y)];
            area.draw(&PathElement::new(line, color.stroke_width(2)))?;
            area.draw(&Circle::new((x(quartiles.median), y), 3, color.filled()))?;
        }
    }
    area.present()?;
    Ok(())
}

fn ratios(results: &Results, scenario: &str, subject: Subject) -> Option<Quartiles> {
    let rounds = results.scenarios.get(scenario)?.iter();
    let ratios: Vec<f64> = rounds
        .filter_map(|round| to_bare(round, subject, Figure::CpuPerFrame))
        .collect();
    Quartiles::of(&ratios)
}

/// Where a ratio is on the logarithmic axis. What is beyond its ends is drawn at the end.
#[allow(clippy::cast_possible_truncation)] // Within the picture.
fn x(ratio: f64) -> i32 {
    let part = (ratio.clamp(0.5, 2.0).ln() - 0.5_f64.ln()) / 4.0_f64.ln();
    LEFT + (part * f64::from(AXIS)).round() as i32
}

const SUBJECTS: [(Subject, RGBColor); 4] = [
    (Subject::Auto, RGBColor(0, 90, 181)),
    (Subject::OneFrame, RGBColor(230, 159, 0)),
    (Subject::Load, RGBColor(0, 158, 115)),
    (Subject::Always, RGBColor(150, 150, 150)),
];
const WIDTH: u32 = 820;
const ROW: u32 = 28;
const LEFT: i32 = 170;
const TOP: i32 = 80;
const AXIS: i32 = 620;
