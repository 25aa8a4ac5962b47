//! Golden arrays, and features made of them.

use half::f16;
use safetensors::{Dtype, SafeTensors};
use std::io::Read;
use std::path::Path;
use training_engine::features::{
    AgentFeatures, CausalFeatures, CostMap, Features, MapFeatures, ReferenceLineFeatures, StaticFeatures, cost_map,
};
use training_engine::scenario::Vehicle;

/// The arrays of one scenario, of one file or two.
pub struct Golden {
    pub name: String,
    files: Vec<Vec<u8>>,
}

impl Golden {
    /// `more` is a compressed file with further arrays; of equal names its are meant.
    pub fn read(path: &Path, more: Option<&Path>) -> Self {
        let mut files = vec![std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))];
        if let Some(more) = more {
            let mut data = Vec::new();
            flate2::read::GzDecoder::new(std::fs::File::open(more).unwrap()).read_to_end(&mut data).unwrap();
            files.insert(0, data);
        }
        Self { name: path.display().to_string(), files }
    }

    pub fn names(&self) -> Vec<String> {
        self.files
            .iter()
            .flat_map(|data| SafeTensors::deserialize(data).unwrap().names().into_iter().map(String::from).collect::<Vec<_>>())
            .collect()
    }

    pub fn has(&self, key: &str) -> bool {
        self.files.iter().any(|data| SafeTensors::deserialize(data).unwrap().tensor(key).is_ok())
    }

    /// Any array as doubles.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let found = self.files.iter().find_map(|data| numbers(&SafeTensors::deserialize(data).unwrap(), key));
        found.unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }
}

/// Any array as doubles, if there is one of this name.
pub fn numbers(tensors: &SafeTensors, key: &str) -> Option<Vec<f64>> {
    let tensor = tensors.tensor(key).ok()?;
    let data = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect(),
        Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::I32 => data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
        Dtype::I8 => data.iter().map(|&b| f64::from(b as i8)).collect(),
        Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("{key} is {other:?}"),
    })
}

/// Features as the published builder made them; agents' absent steps and lines' absent points are zeroed, as ours are.
pub fn features(golden: &Golden) -> Features {
    let real = |key: &str| golden.numbers(key);
    let flags = |key: &str| -> Vec<bool> { real(key).iter().map(|&v| v != 0.0).collect() };
    let bytes = |key: &str| -> Vec<i8> { real(key).iter().map(|&v| v as i8).collect() };
    let where_valid = |key: &str, valid: &[bool], width: usize| {
        let mut values = real(key);
        for (chunk, _) in values.chunks_mut(width).zip(valid).filter(|(_, valid)| !**valid) {
            chunk.fill(0.0);
        }
        values
    };
    let category = bytes("agent/category");
    let valid = flags("agent/valid_mask");
    let agents = AgentFeatures {
        count: category.len(),
        steps: valid.len() / category.len(),
        position: where_valid("agent/position", &valid, 2),
        heading: where_valid("agent/heading", &valid, 1),
        velocity: where_valid("agent/velocity", &valid, 2),
        shape: where_valid("agent/shape", &valid, 2),
        target: real("agent/target"),
        category,
        valid,
    };
    let map = MapFeatures {
        count: real("map/polygon_type").len(),
        point_position: real("map/point_position"),
        point_vector: real("map/point_vector"),
        point_orientation: real("map/point_orientation"),
        polygon_center: real("map/polygon_center"),
        polygon_position: real("map/polygon_position"),
        polygon_orientation: real("map/polygon_orientation"),
        polygon_type: bytes("map/polygon_type"),
        polygon_on_route: flags("map/polygon_on_route"),
        polygon_light: bytes("map/polygon_tl_status"),
        polygon_has_speed_limit: flags("map/polygon_has_speed_limit"),
        polygon_speed_limit: real("map/polygon_speed_limit"),
        polygon_road_block: real("map/polygon_road_block_id").iter().map(|&v| v as i32).collect(),
        valid: flags("map/valid_mask"),
    };
    let static_objects = StaticFeatures {
        count: real("static_objects/category").len(),
        position: real("static_objects/position"),
        heading: real("static_objects/heading"),
        shape: real("static_objects/shape"),
        category: bytes("static_objects/category"),
        valid: flags("static_objects/valid_mask"),
    };
    let valid = flags("reference_line/valid_mask");
    let reference_lines = ReferenceLineFeatures {
        count: valid.len() / 120,
        points: 120,
        position: where_valid("reference_line/position", &valid, 2),
        vector: where_valid("reference_line/vector", &valid, 2),
        orientation: where_valid("reference_line/orientation", &valid, 1),
        future_projection: real("reference_line/future_projection"),
        valid,
    };
    let causal = CausalFeatures {
        waiting_for_red_light: flags("causal/is_waiting_for_red_light_without_lead")[0],
        leading_agent: flags("causal/leading_agent_mask"),
        leading_distance: real("causal/leading_distance"),
        red_light: flags("causal/ego_care_red_light_mask"),
        ego_future_valid: flags("causal/fixed_ego_future_valid_mask"),
        free_path: real("causal/free_path_points"),
        interaction_label: real("causal/interaction_label"),
    };
    let cost_map = golden
        .has("cost_maps")
        .then(|| CostMap { size: cost_map::SIZE, values: real("cost_maps").into_iter().map(|v| v as f32).collect() });
    Features {
        token: golden.name.clone(),
        origin: real("origin").try_into().unwrap(),
        angle: real("angle")[0],
        current_state: real("current_state").try_into().unwrap(),
        rear_axle_to_center: Vehicle::PACIFICA.rear_axle_to_center(),
        agents,
        map,
        static_objects,
        reference_lines,
        cost_map,
        causal,
        ..Features::default()
    }
}
