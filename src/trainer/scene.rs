//! One scenario as the network sees it, with what it plans: as JSON, and as a picture beside it.

use super::session::Outputs;
use crate::{
    data::Batch,
    error::{Error, Result},
    features::Features,
    files::write_atomically,
    scenario::Split,
};
use serde::Serialize;
use std::{fmt::Write, path::Path};

/// In the ego frame of the present step: metres, x ahead, y to the left; radians.
#[derive(Serialize)]
pub(super) struct Scene<'a> {
    token: &'a str,
    log_name: &'a str,
    scenario_type: &'a str,
    split: &'static str,
    loss: f64,
    map: Vec<MapLines>,
    /// `[F]`: x, y, heading.
    truth: Vec<[f64; 3]>,
    candidates: Vec<Candidate>,
    /// Of the most probable candidate.
    best_trajectory: Vec<[f64; 3]>,
}

/// Lines of a polygon of the map, of its valid points.
#[derive(Serialize)]
struct MapLines {
    kind: &'static str,
    center: Vec<[f64; 2]>,
    left: Vec<[f64; 2]>,
    right: Vec<[f64; 2]>,
}

#[derive(Serialize)]
struct Candidate {
    probability: f64,
    /// `[F]`: x, y, heading.
    trajectory: Vec<[f64; 3]>,
}

impl<'a> Scene<'a> {
    /// Of the outputs for a batch that has this scenario alone.
    pub fn new(features: &'a Features, batch: &Batch, outputs: &Outputs, split: Split, log_name: &'a str, loss: f64) -> Self {
        let rows = outputs.rows(batch, 0).zip(outputs.probabilities(batch, 0));
        Self {
            token: &features.token,
            log_name,
            scenario_type: &features.scenario_type,
            split: split.name(),
            loss,
            map: map_lines(features),
            truth: batch.ego_future.chunks_exact(3).map(|s| [s[0], s[1], s[2]]).collect(),
            candidates: rows.map(|(row, probability)| Candidate { probability, trajectory: outputs.poses(row) }).collect(),
            best_trajectory: outputs.best_trajectory(batch, 0),
        }
    }

    /// Writes `TOKEN.json` and `TOKEN.svg` into a folder. What a file's name may not hold is written `_`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let safe = |c: char| if c.is_alphanumeric() || " -_.".contains(c) { c } else { '_' };
        let name: String = self.token.chars().map(safe).take(128).collect();
        let path = folder.join(format!("{name}.json"));
        write_atomically(&path, &serde_json::to_vec(self).map_err(|e| Error::file(&path, e))?)?;
        write_atomically(&folder.join(format!("{name}.svg")), self.picture().as_bytes())
    }

    /// SVG of 80 m around the ego, x to the right: edges grey, candidates blue by probability, the best red, the truth green.
    fn picture(&self) -> String {
        let mut svg = String::from(r#"<svg xmlns="http://www.w3.org/2000/svg" width="800" height="800" viewBox="-80 -80 160 160">"#);
        svg.push_str(r##"<rect x="-80" y="-80" width="160" height="160" fill="#fff"/><g fill="none" stroke-linejoin="round">"##);
        for lines in &self.map {
            polyline(&mut svg, &lines.left, "#999", 0.3, 1.0);
            polyline(&mut svg, &lines.right, "#999", 0.3, 1.0);
            polyline(&mut svg, &lines.center, "#ddd", 0.2, 1.0);
        }
        let places = |states: &[[f64; 3]]| states.iter().map(|s| [s[0], s[1]]).collect::<Vec<_>>();
        for candidate in &self.candidates {
            polyline(&mut svg, &places(&candidate.trajectory), "#36c", 0.4, 0.1 + 0.9 * candidate.probability);
        }
        polyline(&mut svg, &places(&self.truth), "#2a2", 0.8, 1.0);
        polyline(&mut svg, &places(&self.best_trajectory), "#d22", 0.6, 1.0);
        svg.push_str("</g></svg>\n");
        svg
    }
}

fn map_lines(features: &Features) -> Vec<MapLines> {
    let map = &features.map;
    let points = map.valid.len() / map.count.max(1);
    let line = |polygon: usize, side: usize| {
        let all = map.point_position[(polygon * 3 + side) * points * 2..][..points * 2].chunks_exact(2);
        let valid = all.zip(&map.valid[polygon * points..]).filter(|(_, valid)| **valid);
        valid.map(|(point, _)| [point[0], point[1]]).collect()
    };
    let kind = |polygon: usize| match map.polygon_type[polygon] {
        0 => "lane",
        1 => "connector",
        _ => "crosswalk",
    };
    let lines = |i| MapLines { kind: kind(i), center: line(i, 0), left: line(i, 1), right: line(i, 2) };
    (0..map.count).map(lines).collect()
}

/// The y axis of SVG points down.
fn polyline(svg: &mut String, points: &[[f64; 2]], color: &str, width: f64, opacity: f64) {
    let _ = write!(svg, r#"<polyline stroke="{color}" stroke-width="{width}" opacity="{opacity:.3}" points=""#);
    for [x, y] in points {
        let _ = write!(svg, "{x:.2},{:.2} ", -y);
    }
    svg.push_str("\"/>");
}
