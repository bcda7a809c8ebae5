//! A picture of pixels to draw on, with a font of its own, so that a PNG looks the same on every machine.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use super::chart::SIZE;

/// A picture in memory.
#[derive(Debug)]
pub(super) struct Pixels {
    rgb: Vec<u8>,
}

/// Drawing in memory does not fail.
#[derive(Debug, thiserror::Error)]
#[error("the picture could not be drawn")]
pub(super) struct Never;

type Drawn = Result<(), DrawingErrorKind<Never>>;

impl Pixels {
    pub(super) fn new() -> Self {
        let (width, height) = SIZE;
        Self {
            rgb: vec![255; (width * height * 3) as usize],
        }
    }

    /// Writes the picture as a PNG.
    pub(super) fn write(&self, file: &Path) -> Result<(), png::EncodingError> {
        let file = BufWriter::new(File::create(file)?);
        let mut encoder = png::Encoder::new(file, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }

    fn blend(&mut self, (x, y): BackendCoord, color: BackendColor) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        if x >= SIZE.0 || y >= SIZE.1 {
            return;
        }
        let at = ((y * SIZE.0 + x) * 3) as usize;
        let (red, green, blue) = color.rgb;
        for (old, new) in self.rgb[at..at + 3].iter_mut().zip([red, green, blue]) {
            *old = mixed(*old, new, color.alpha);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value lies between two bytes"
)]
fn mixed(old: u8, new: u8, alpha: f64) -> u8 {
    let alpha = alpha.clamp(0.0, 1.0);
    (f64::from(old) * (1.0 - alpha) + f64::from(new) * alpha).round() as u8
}

fn height_of(size: f64) -> RasterHeight {
    if size > 20.0 {
        RasterHeight::Size20
    } else {
        RasterHeight::Size16
    }
}

fn extent(text: &str, size: f64) -> (i32, i32) {
    let height = height_of(size);
    let width = get_raster_width(FontWeight::Regular, height) * text.chars().count();
    let whole = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    (whole(width), whole(height.val()))
}

impl DrawingBackend for &mut Pixels {
    type ErrorType = Never;

    fn get_size(&self) -> (u32, u32) {
        SIZE
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn {
        self.blend(point, color);
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Drawn {
        let (width, height) = extent(text, style.size());
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let mut column = left;
        for letter in text.chars() {
            let raster = get_raster(letter, FontWeight::Regular, height_of(style.size()));
            let raster =
                raster.or_else(|| get_raster('?', FontWeight::Regular, height_of(style.size())));
            let Some(raster) = raster else { continue };
            for (row, line) in (top..).zip(raster.rows()) {
                for (at, shade) in (column..).zip(line.iter()) {
                    let (dx, dy) = turned((at, row), &style.transform());
                    let color = BackendColor {
                        alpha: style.color().alpha * f64::from(*shade) / 255.0,
                        ..style.color()
                    };
                    self.blend((x + dx, y + dy), color);
                }
            }
            column += i32::try_from(raster.width()).unwrap_or(0);
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let (width, height) = extent(text, style.size());
        Ok((width.unsigned_abs(), height.unsigned_abs()))
    }
}

fn turned((x, y): (i32, i32), how: &FontTransform) -> (i32, i32) {
    match how {
        FontTransform::None => (x, y),
        FontTransform::Rotate90 => (-y, x),
        FontTransform::Rotate180 => (-x, -y),
        FontTransform::Rotate270 => (y, -x),
    }
}
