//! A small picture: areas and lines in metres, drawn into pixels, encoded as PNG.

use crate::error::{Error, Result};
use std::path::Path;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Pixels on a view of the plane: x of the plane goes up, y to the left, as one sees a scene in the ego's frame.
pub struct Picture {
    width: usize,
    height: usize,
    /// Pixels of a metre.
    scale: f64,
    /// Point of the plane at the middle of the picture.
    centre: [f64; 2],
    /// `[height, width]`.
    pixels: Vec<Colour>,
}

/// An encoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// The PNG file.
    pub png: Vec<u8>,
}

impl Picture {
    /// An empty picture of `size` x `size` pixels that shows the plane within `radius` metres of `centre`.
    pub fn new(size: usize, centre: [f64; 2], radius: f64, background: Colour) -> Self {
        let scale = size as f64 / (2.0 * radius);
        Self { width: size, height: size, scale, centre, pixels: vec![background; size * size] }
    }

    /// Where a point lies, in pixels: column, row.
    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        [self.width as f64 / 2.0 - dy * self.scale, self.height as f64 / 2.0 - dx * self.scale]
    }

    /// Fills a polygon, by the even-odd rule. Points that are not finite are left out.
    pub fn area(&mut self, points: impl IntoIterator<Item = [f64; 2]>, colour: Colour) {
        let corners: Vec<[f64; 2]> = points.into_iter().map(|p| self.place(p)).filter(|p| p.iter().all(|x| x.is_finite())).collect();
        let rows = corners.iter().map(|p| p[1]);
        let first = rows.clone().fold(f64::INFINITY, f64::min).floor().max(0.0) as usize;
        let last = rows.fold(f64::NEG_INFINITY, f64::max).ceil().min(self.height as f64).max(0.0) as usize;
        let mut crossings = Vec::new();
        for row in first..last {
            let y = row as f64 + 0.5;
            crossings.clear();
            for (i, a) in corners.iter().enumerate() {
                let b = &corners[(i + 1) % corners.len()];
                if (a[1] <= y) != (b[1] <= y) {
                    crossings.push(a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
                }
            }
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.as_chunks::<2>().0 {
                // Pixels whose middle lies between the two.
                let column = |x: f64| (x - 0.5).ceil().clamp(0.0, self.width as f64) as usize;
                let (from, to) = (column(pair[0]), column(pair[1]));
                self.pixels[row * self.width..][from..to].fill(colour);
            }
        }
    }

    /// Draws a polyline, `width` pixels wide.
    pub fn line(&mut self, points: impl IntoIterator<Item = [f64; 2]>, width: f64, colour: Colour) {
        let mut before = None;
        for point in points {
            let point = self.place(point);
            if let Some(before) = before {
                self.segment(before, point, width / 2.0, colour);
            }
            before = Some(point);
        }
    }

    /// All pixels whose middle is within `radius` of the segment.
    fn segment(&mut self, a: [f64; 2], b: [f64; 2], radius: f64, colour: Colour) {
        if !a.iter().chain(&b).all(|x| x.is_finite()) {
            return;
        }
        let range = |a: f64, b: f64, most: usize| {
            let (low, high) = (a.min(b) - radius - 0.5, a.max(b) + radius + 0.5);
            low.clamp(0.0, most as f64) as usize..high.clamp(0.0, most as f64) as usize
        };
        let d = [b[0] - a[0], b[1] - a[1]];
        let squared = (d[0] * d[0] + d[1] * d[1]).max(f64::MIN_POSITIVE);
        let columns = range(a[0], b[0], self.width);
        for row in range(a[1], b[1], self.height) {
            for column in columns.clone() {
                let p = [column as f64 + 0.5 - a[0], row as f64 + 0.5 - a[1]];
                let t = ((p[0] * d[0] + p[1] * d[1]) / squared).clamp(0.0, 1.0);
                let away = [p[0] - t * d[0], p[1] - t * d[1]];
                if away[0] * away[0] + away[1] * away[1] <= radius * radius {
                    self.pixels[row * self.width + column] = colour;
                }
            }
        }
    }

    /// A box with its centre and heading (radians) in the plane.
    pub fn rectangle(&mut self, [x, y, heading]: [f64; 3], length: f64, width: f64, colour: Colour) {
        let (sin, cos) = heading.sin_cos();
        let corner = |(along, across): (f64, f64)| {
            let (along, across) = (along * length / 2.0, across * width / 2.0);
            [x + along * cos - across * sin, y + along * sin + across * cos]
        };
        self.area([(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0)].map(corner), colour);
    }

    /// Colour of a pixel.
    pub fn pixel(&self, column: usize, row: usize) -> Colour {
        self.pixels[row * self.width + column]
    }

    /// The picture as PNG.
    ///
    /// # Errors
    /// [`Error::File`] if it has no pixel or too many.
    pub fn encode(&self) -> Result<Image> {
        let fail = |e: png::EncodingError| Error::file("picture.png", e);
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut content = Vec::new();
        let mut encoder = png::Encoder::new(&mut content, size(self.width), size(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(fail)?;
        writer.write_image_data(self.pixels.as_flattened()).map_err(fail)?;
        writer.finish().map_err(fail)?;
        Ok(Image { width: self.width, height: self.height, png: content })
    }

    /// Writes the picture to a PNG file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::files::write_atomically(path, &self.encode()?.png)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Colour = [255; 3];
    const RED: Colour = [255, 0, 0];

    fn count(picture: &Picture, colour: Colour) -> usize {
        picture.pixels.iter().filter(|pixel| **pixel == colour).count()
    }

    #[test]
    fn areas_and_lines_cover_the_pixels_that_they_should() {
        // One pixel a metre, the plane's origin in the middle.
        let picture = || Picture::new(20, [0.0; 2], 10.0, WHITE);
        let mut p = picture();
        p.rectangle([5.0, 0.0, 0.0], 4.0, 2.0, RED);
        assert_eq!(count(&p, RED), 8);
        // 3 to 7 m ahead is up, 1 m to both sides.
        assert!((3..7).all(|row| p.pixel(9, row) == RED && p.pixel(10, row) == RED));
        // Turned by a quarter: along y.
        let mut p = picture();
        p.rectangle([5.0, 0.0, std::f64::consts::FRAC_PI_2], 4.0, 2.0, RED);
        assert!((8..12).all(|column| p.pixel(column, 4) == RED && p.pixel(column, 5) == RED));
        // 6 m to the left, from 5 m behind to 5 m ahead.
        let mut p = picture();
        p.line([[-5.0, 6.0], [5.0, 6.0]], 1.9, RED);
        assert!((5..15).all(|row| p.pixel(3, row) == RED && p.pixel(4, row) == RED && p.pixel(5, row) == WHITE));
        // Outside of the picture, and where no number is.
        let mut p = picture();
        p.area([[100.0, 100.0], [120.0, 100.0], [120.0, 120.0]], RED);
        p.line([[f64::NAN, 0.0], [1.0, 0.0], [1e300, f64::INFINITY]], 3.0, RED);
        p.line([[50.0, 50.0], [60.0, 1e12]], 3.0, RED);
        assert_eq!(count(&p, RED), 0);
        // A hole: the even-odd rule.
        let mut p = picture();
        p.area(
            [
                [-4.0, -4.0],
                [4.0, -4.0],
                [4.0, 4.0],
                [-4.0, 4.0],
                [-4.0, -4.0],
                [-2.0, -2.0],
                [2.0, -2.0],
                [2.0, 2.0],
                [-2.0, 2.0],
                [-2.0, -2.0],
            ],
            RED,
        );
        assert_eq!(count(&p, RED), 64 - 16);
    }

    #[test]
    fn images_read_back() {
        let mut picture = Picture::new(16, [0.0; 2], 8.0, [10, 20, 30]);
        picture.rectangle([0.0; 3], 4.0, 4.0, RED);
        let image = picture.encode().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&image.png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.pixels.as_flattened());
        assert!(Picture::new(0, [0.0; 2], 8.0, WHITE).encode().is_err());
    }
}
