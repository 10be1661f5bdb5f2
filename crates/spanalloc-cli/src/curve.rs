//! The memory of a replay as a picture that can be read on a light and on a dark page.

use plotters::prelude::*;

use crate::replay::Moment;

const SIZE: (u32, u32) = (900, 380);
const FONT: &str = "sans-serif";
/// For text and lines: in the middle between a white and a black page.
const INK: RGBColor = RGBColor(128, 128, 128);
const LIVE: RGBColor = RGBColor(78, 132, 196);
const RESIDENT: RGBColor = RGBColor(214, 73, 51);

type Failure = Box<dyn std::error::Error>;

/// Live and resident bytes over the time of the trace.
pub(crate) fn draw(title: &str, curve: &[Moment]) -> Result<String, Failure> {
    let last = curve.iter().map(|moment| moment.microseconds).max().unwrap_or(0);
    let most = curve.iter().map(|moment| moment.resident_bytes.max(moment.live_bytes)).max();
    let (end, top) = ((last as f64 / 1e3).max(0.001), most.unwrap_or(0).max(1024) as f64 * 1.05);
    let (divisor, unit) = if top < 1e6 { (1024.0, "KB") } else { (1024.0 * 1024.0, "MB") };

    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.draw(&Text::new(title, (12, 8), (FONT, 17).into_font().color(&INK)))?;
    for (x, name, colour) in [(14, "resident", RESIDENT), (114, "live", LIVE)] {
        area.draw(&Rectangle::new([(x, 36), (x + 12, 48)], colour.filled()))?;
        area.draw(&Text::new(name, (x + 17, 35), (FONT, 13).into_font().color(&INK)))?;
    }
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .margin_top(60)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top / divisor)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.35))
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_desc("milliseconds of the program")
        .y_desc(unit)
        .draw()?;
    let place =
        |moment: &Moment, bytes: usize| (moment.microseconds as f64 / 1e3, bytes as f64 / divisor);
    let resident = curve.iter().map(|moment| place(moment, moment.resident_bytes));
    let live = curve.iter().map(|moment| place(moment, moment.live_bytes));
    chart
        .draw_series([PathElement::new(resident.collect::<Vec<_>>(), RESIDENT.stroke_width(2))])?;
    chart.draw_series([PathElement::new(live.collect::<Vec<_>>(), LIVE.stroke_width(2))])?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_both_lines_even_of_nothing() {
        for curve in [vec![], vec![Moment::default(); 3]] {
            let svg = draw("a title", &curve).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for text in ["a title", "resident", "live", "KB"] {
                assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
            }
        }
    }
}
