//! The results of a comparison as charts that can be read on a light and on a dark page.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contenders::{FLOOR, MIMALLOC3, SPANALLOC};
use crate::results::{Measure, Results};

const SIZE: (u32, u32) = (1000, 420);
const FONT: &str = "sans-serif";
/// For text and lines: in the middle between a white and a black page.
const INK: RGBColor = RGBColor(128, 128, 128);
/// The colours of the contenders, in their order.
const COLOURS: [RGBColor; 8] = [
    RGBColor(214, 73, 51),
    RGBColor(232, 148, 58),
    RGBColor(140, 140, 140),
    RGBColor(78, 132, 196),
    RGBColor(74, 160, 118),
    RGBColor(150, 110, 190),
    RGBColor(190, 160, 60),
    RGBColor(70, 165, 180),
];
/// Ratios above this are cut off; their value is written on them.
const CUT: f64 = 2.5;
/// The part of a group's width that its bars take.
const FILLED: f64 = 0.86;

type Failure = Box<dyn std::error::Error>;

/// Times as a part of mimalloc's.
///
/// # Errors
/// It could not be drawn.
pub fn time(results: &Results) -> Result<String, Failure> {
    draw(results, Measure::Time, "Time, as a multiple of mimalloc v3's (geometric means)")
}

/// Peak RSS as a part of mimalloc's.
///
/// # Errors
/// It could not be drawn.
pub fn memory(results: &Results) -> Result<String, Failure> {
    draw(results, Measure::Memory, "Peak RSS, as a multiple of mimalloc v3's (geometric means)")
}

fn draw(results: &Results, measure: Measure, title: &str) -> Result<String, Failure> {
    let shown: Vec<usize> = (0..results.contenders.len())
        .filter(|&place| ![MIMALLOC3, FLOOR].contains(&results.contenders[place].name.as_str()))
        .collect();
    let groups: Vec<Option<&str>> =
        std::iter::once(None).chain(results.groups().into_iter().map(Some)).collect();
    let ratio = &|place: usize, group: Option<&str>| {
        results.mean_ratio(measure, group, |_| Some(place), |_| results.contender(MIMALLOC3))
    };
    let most = groups
        .iter()
        .flat_map(|&group| shown.iter().filter_map(move |&place| ratio(place, group)))
        .fold(1.0, f64::max);
    let top = most.min(CUT) * 1.08;

    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let (head, body) = area.split_vertically(62);
    let heading = (FONT, 17).into_font().color(&INK);
    head.draw(&Text::new(title, (12, 8), heading))?;
    legend(&head, results, &shown)?;

    let mut chart = ChartBuilder::on(&body)
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.35))
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .y_label_formatter(&|ratio| format!("{ratio:.1}"))
        .draw()?;
    let bar = FILLED / shown.len() as f64;
    let left = |group: usize, turn: usize| group as f64 + (1.0 - FILLED) / 2.0 + turn as f64 * bar;
    let bars = groups.iter().enumerate().flat_map(|(number, &group)| {
        let ratios = shown.iter().enumerate();
        ratios.filter_map(move |(turn, &place)| Some((number, turn, place, ratio(place, group)?)))
    });
    let bars: Vec<(usize, usize, usize, f64)> = bars.collect();
    chart.draw_series(bars.iter().map(|&(number, turn, _, ratio)| {
        let left = left(number, turn);
        Rectangle::new([(left, 0.0), (left + bar * 0.9, ratio.min(top))], colour(turn).filled())
    }))?;
    let one = [(0.0, 1.0), (groups.len() as f64, 1.0)];
    chart.draw_series([PathElement::new(one, INK.stroke_width(2))])?;
    for &(number, turn, place, ratio) in &bars {
        let (text, middle) = (format!("{ratio:.2}"), left(number, turn) + bar * 0.45);
        if ratio > top {
            let style = (FONT, 11).into_font().transform(FontTransform::Rotate270).color(&WHITE);
            let style = style.pos(Pos::new(HPos::Right, VPos::Center));
            chart.draw_series([Text::new(text, (middle, top * 0.99), style)])?;
        } else if results.contenders[place].name == SPANALLOC {
            let style = (FONT, 12).into_font().color(&INK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([Text::new(text, (middle, ratio), style)])?;
        }
    }
    for (number, &group) in groups.iter().enumerate() {
        let name = group.unwrap_or("all");
        let (x, y) = chart.backend_coord(&(number as f64 + 0.5, 0.0));
        let below = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(name, (x, y + 6), below))?;
    }
    area.present()?;
    drop(chart);
    drop((head, body, area));
    Ok(svg)
}

/// The names of the contenders beside their colours, in one line.
fn legend<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    results: &Results,
    shown: &[usize],
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    let mut x = 14;
    for (turn, &place) in shown.iter().enumerate() {
        let name = results.contenders[place].name.as_str();
        area.draw(&Rectangle::new([(x, 40), (x + 12, 52)], colour(turn).filled()))?;
        area.draw(&Text::new(name, (x + 17, 39), (FONT, 13).into_font().color(&INK)))?;
        x += 34 + 7 * name.len() as i32;
    }
    Ok(())
}

fn colour(turn: usize) -> RGBColor {
    COLOURS[turn % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::{memory, time};
    use crate::results::tests::two_rows;

    #[test]
    fn charts_have_a_bar_for_each_mean_and_no_page_of_their_own() {
        let results = two_rows();
        for svg in [time(&results).unwrap(), memory(&results).unwrap()] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            // Three groups and a legend for each of three contenders, no background.
            assert_eq!(svg.matches("<rect").count(), 3 * 3 + 3);
            for text in ["Pairs", "Threads", "all", "spanalloc checked", "system"] {
                assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
            }
            assert!(!svg.contains("\nfloor\n"));
        }
        // A bar that is cut off has its value on it.
        assert!(time(&results).unwrap().contains("\n2.00\n"));
    }
}
