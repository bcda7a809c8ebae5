//! A chart of lines over one axis, on whatever is drawn on.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Pixels of a chart.
pub(super) const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";

/// A line and what it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// What cannot be beaten is grey.
    pub(super) bound: bool,
}

/// What a chart shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Chart {
    /// The files' name.
    pub(super) file: &'static str,
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
    /// Each step of the upright axis is ten times the one before.
    pub(super) logarithmic: bool,
    /// The upper left is where the lines are.
    pub(super) rises: bool,
}

/// Colours that people tell apart who see fewer (Okabe and Ito).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

type Drawn<D> = Result<(), DrawingAreaErrorKind<<D as DrawingBackend>::ErrorType>>;

impl Chart {
    /// Draws it.
    pub(super) fn draw<D: DrawingBackend>(&self, on: D) -> Drawn<D> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let right = most(&mut points().map(|point| point.0)).max(1e-9);
        let top = most(&mut points().map(|point| point.1)).max(1e-9) * 1.08;
        if self.logarithmic {
            let least = points().map(|point| point.1).filter(|y| *y > 0.0);
            let bottom = least.fold(top, f64::min) / 1.3;
            self.draw_over(on, right, (bottom..top * 1.3).log_scale())
        } else {
            self.draw_over(on, right, 0.0..top)
        }
    }

    fn draw_over<D, Y>(&self, on: D, right: f64, y: Y) -> Drawn<D>
    where
        D: DrawingBackend,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let area = on.into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 22))
            .margin(14)
            .margin_right(36)
            .set_label_area_size(LabelAreaPosition::Bottom, 48)
            .set_label_area_size(LabelAreaPosition::Left, 84)
            .build_cartesian_2d(0.0..right, y)?;
        chart
            .configure_mesh()
            .light_line_style(RGBColor(244, 244, 244))
            .bold_line_style(RGBColor(222, 222, 222))
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style((FONT, 16))
            .axis_desc_style((FONT, 17))
            .draw()?;
        let mut colours = COLOURS.iter().cycle();
        for line in &self.lines {
            let colour = if line.bound {
                RGBColor(110, 110, 110)
            } else {
                *colours.next().unwrap_or(&COLOURS[0])
            };
            let style = ShapeStyle::from(&colour).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(if self.rises {
                SeriesLabelPosition::LowerRight
            } else {
                SeriesLabelPosition::UpperRight
            })
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 16))
            .draw()?;
        area.present()
    }
}
