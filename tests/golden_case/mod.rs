//! Reads a golden case: a network, a batch, and what a reference in double precision made of them.

#![allow(dead_code, reason = "each test program uses a part")]

use flate2::read::GzDecoder;
use safetensors::{Dtype, SafeTensors};
use std::{collections::BTreeMap, io::Read, path::Path};
use training_engine::{
    config::{ModelConfig, ObjectiveConfig},
    features::{AgentFeatures, CostMap, Features, MapFeatures, ReferenceLineFeatures, StaticFeatures},
};

/// An array of any element type.
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// One case.
pub struct Case {
    pub name: String,
    pub model: ModelConfig,
    pub objectives: ObjectiveConfig,
    pub fit: serde_json::Value,
    pub arrays: BTreeMap<String, Array>,
}

impl Case {
    /// Reads `*.safetensors` or `*.safetensors.gz`.
    pub fn read(path: &Path) -> Self {
        let mut bytes = std::fs::read(path).unwrap();
        if path.extension().is_some_and(|e| e == "gz") {
            let mut raw = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut raw).unwrap();
            bytes = raw;
        }
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let json = |key: &str| serde_json::from_str::<serde_json::Value>(&metadata[key]).unwrap();
        let arrays = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, view)| {
                let data = view.data();
                let values = match view.dtype() {
                    Dtype::F32 => data.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()).into()).collect(),
                    Dtype::F64 => data.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
                    Dtype::I64 => data.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f64).collect(),
                    Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| b.into()).collect(),
                    other => panic!("{name}: {other:?}"),
                };
                (name.to_string(), Array { shape: view.shape().to_vec(), values })
            })
            .collect();
        let name = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_string();
        Self { name, model: model(&json("config")), objectives: objectives(&json("options")), fit: json("fit"), arrays }
    }

    /// An array that the case has.
    pub fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("{}: no '{name}'", self.name))
    }

    /// Names below a prefix, without it.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Array)> {
        self.arrays.iter().filter_map(move |(name, array)| Some((name.strip_prefix(prefix)?, array)))
    }

    /// The flags of the triplets; none in a batch without them.
    pub fn negative_valid(&self) -> Vec<bool> {
        self.arrays.get("batch/data_n_valid_mask").map(|a| a.values.iter().map(|&v| v != 0.0).collect()).unwrap_or_default()
    }

    /// The scenarios of the padded batch, with their padding.
    pub fn features(&self) -> Vec<Features> {
        (0..self.array("batch/current_state").shape[0]).map(|i| self.scenario(i)).collect()
    }

    fn scenario(&self, i: usize) -> Features {
        let shape = |name: &str| &self.array(&format!("batch/{name}")).shape;
        let real = |name: &str| {
            let array = self.array(&format!("batch/{name}"));
            let len: usize = array.shape[1..].iter().product();
            array.values[i * len..(i + 1) * len].to_vec()
        };
        let flags = |name: &str| real(name).into_iter().map(|v| v != 0.0).collect::<Vec<bool>>();
        let small = |name: &str| real(name).into_iter().map(|v| v as i8).collect::<Vec<i8>>();
        let agents = AgentFeatures {
            count: shape("agent/valid_mask")[1],
            steps: shape("agent/valid_mask")[2],
            position: real("agent/position"),
            heading: real("agent/heading"),
            velocity: real("agent/velocity"),
            shape: real("agent/shape"),
            category: small("agent/category"),
            valid: flags("agent/valid_mask"),
            target: real("agent/target"),
        };
        let map = MapFeatures {
            count: shape("map/valid_mask")[1],
            point_position: real("map/point_position"),
            point_vector: real("map/point_vector"),
            point_orientation: real("map/point_orientation"),
            polygon_center: real("map/polygon_center"),
            polygon_type: small("map/polygon_type"),
            polygon_on_route: flags("map/polygon_on_route"),
            polygon_light: small("map/polygon_tl_status"),
            polygon_has_speed_limit: flags("map/polygon_has_speed_limit"),
            polygon_speed_limit: real("map/polygon_speed_limit"),
            valid: flags("map/valid_mask"),
            ..MapFeatures::default()
        };
        let static_objects = StaticFeatures {
            count: shape("static_objects/valid_mask")[1],
            position: real("static_objects/position"),
            heading: real("static_objects/heading"),
            shape: real("static_objects/shape"),
            category: small("static_objects/category"),
            valid: flags("static_objects/valid_mask"),
        };
        let reference_lines = ReferenceLineFeatures {
            count: shape("reference_line/valid_mask")[1],
            points: shape("reference_line/valid_mask")[2],
            position: real("reference_line/position"),
            vector: real("reference_line/vector"),
            orientation: real("reference_line/orientation"),
            valid: flags("reference_line/valid_mask"),
            future_projection: real("reference_line/future_projection"),
        };
        let cost_map = CostMap { size: shape("cost_maps")[1], values: real("cost_maps").into_iter().map(|v| v as f32).collect() };
        Features {
            token: format!("{}-{i}", self.name),
            current_state: real("current_state").try_into().unwrap(),
            agents,
            map,
            static_objects,
            reference_lines,
            cost_map: Some(cost_map),
            ..Features::default()
        }
    }
}

/// The network's options. The reference has no stochastic layers: rates that are not stated are 0.
fn model(json: &serde_json::Value) -> ModelConfig {
    let mut c = ModelConfig { dropout: 0.0, drop_path: 0.0, state_dropout: 0.0, ..ModelConfig::default() };
    for (key, value) in json.as_object().unwrap() {
        let number = || value.as_u64().unwrap() as usize;
        let flag = || value.as_bool().unwrap();
        match key.as_str() {
            "dim" => c.dim = number(),
            "state_channel" => c.state_channel = number(),
            "history_channel" => c.history_channel = number(),
            "history_steps" => c.history_steps = number(),
            "future_steps" => c.future_steps = number(),
            "encoder_depth" => c.encoder_depth = number(),
            "decoder_depth" => c.decoder_depth = number(),
            "num_heads" => c.num_heads = number(),
            "num_modes" => c.num_modes = number(),
            "use_ego_history" => c.use_ego_history = flag(),
            "state_attn_encoder" => c.state_attn_encoder = flag(),
            "use_hidden_proj" => c.use_hidden_proj = flag(),
            "cat_x" => c.cat_x = flag(),
            "ref_free_traj" => c.ref_free_traj = flag(),
            "radius" => c.radius = value.as_f64().unwrap(),
            "dropout" => c.dropout = value.as_f64().unwrap(),
            "drop_path" => c.drop_path = value.as_f64().unwrap(),
            "state_dropout" => c.state_dropout = value.as_f64().unwrap(),
            other => panic!("unknown option '{other}'"),
        }
    }
    c
}

fn objectives(json: &serde_json::Value) -> ObjectiveConfig {
    let mut o = ObjectiveConfig::default();
    for (key, value) in json.as_object().unwrap() {
        let flag = value.as_bool().unwrap();
        match key.as_str() {
            "use_collision_loss" => o.use_collision_loss = flag,
            "use_contrast_loss" => o.use_contrast_loss = flag,
            "regulate_yaw" => o.regulate_yaw = flag,
            other => panic!("unknown option '{other}'"),
        }
    }
    o
}
