//! Map polygons to tokens.

use super::{
    fourier,
    layers::embedding,
    points_encoder::{self, Groups},
};
use crate::{
    data::batch::{Index, Input, symbol},
    error::Result,
    graph::{Builder, RowMap, Rows, Scope, TensorId},
};

/// -> `[L, D]`.
pub fn record(b: &mut Builder, p: &Scope) -> Result<TensorId> {
    b.enter(p.name());
    let polygons = Rows::of(symbol::POLYGONS);
    let points = b.input("map points", Input::MapPoints as usize, Rows::of(symbol::POINTS), 10);
    let groups = Groups { segments: Index::PolygonPoints as usize, of_point: Index::PointPolygon as usize, rows: polygons };
    let mut x = points_encoder::record(b, &p.at("polygon_encoder"), points, &groups)?; // [L, D]

    // Only limits that exist are embedded; the row behind them stands for an unknown one.
    let limit = b.input("speed limit", Input::SpeedLimit as usize, Rows::of(symbol::LIMITS), 1);
    let known = fourier::record(b, &p.at("speed_limit_emb"), limit)?; // [limits, D]
    let unknown = b.parameter(&p.at("unknown_speed_emb"), "weight")?; // [1, D]
    let speeds = b.concat(&[known, unknown], Rows::of(symbol::LIMIT_ROWS))?; // [limits + 1, D]
    let speed = b.gather(speeds, Index::PolygonLimit as usize, polygons); // [L, D]

    let tables = [("type_emb", Index::PolygonType), ("on_route_emb", Index::PolygonOnRoute), ("traffic_light_emb", Index::PolygonLight)];
    for (table, index) in tables {
        let e = embedding(b, &p.at(table), index as usize, polygons)?; // [L, D]
        x = b.add(x, e, RowMap::Same)?;
    }
    let x = b.add(x, speed, RowMap::Same)?;
    b.leave();
    Ok(x)
}
