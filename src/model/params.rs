//! Names, shapes and initial values of all parameters and running statistics, as checkpoints of the published model have them.

use super::{fourier::BANDS, history_encoder};
use crate::{
    config::ModelConfig,
    graph::{Parameters, Step, random},
};

/// How the initial value is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value.
    Constant(f64),
    /// Uniform in ±sqrt(6 / (inputs + outputs)) (Glorot and Bengio, 2010).
    Xavier,
    /// Uniform in ±1 / sqrt(inputs).
    Uniform {
        /// Inputs of one output.
        inputs: usize,
    },
    /// Normal around 0 with this deviation.
    Normal(f64),
    /// Normal as above, drawn again beyond ±2.
    TruncatedNormal(f64),
}

/// One parameter or running statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Specification {
    /// Name in a checkpoint.
    pub name: String,
    /// Shape in a checkpoint.
    pub shape: Vec<usize>,
    /// Initial value.
    pub init: Init,
    /// A running statistic of a batch norm instead of a parameter.
    pub statistic: bool,
}

const ZERO: Init = Init::Constant(0.0);
const ONE: Init = Init::Constant(1.0);
/// Embeddings, frequency tables, the ego query and its positions.
const EMBEDDING: Init = Init::Normal(0.02);
/// Mode embedding and position.
const MODE: Init = Init::Normal(0.01);

/// All parameters and statistics of a model.
pub fn specifications(config: &ModelConfig) -> Vec<Specification> {
    let (d, mut t) = (config.dim, Table { dim: config.dim, entries: Vec::new() });
    t.fourier("pos_emb", 3);

    t.history_encoder("agent_encoder.history_encoder", config.history_channel);
    let ego = "agent_encoder.ego_state_emb";
    if !config.use_ego_history && config.state_attn_encoder {
        t.put(format!("{ego}.pos_embed"), &[1, config.state_channel, d], EMBEDDING);
        t.put(format!("{ego}.query"), &[1, 1, d], EMBEDDING);
        for i in 0..config.state_channel {
            t.linear(format!("{ego}.linears.{i}"), 1, d);
        }
        t.attention(format!("{ego}.attn"));
    } else if !config.use_ego_history {
        t.put(format!("{ego}.0.weight"), &[d, config.state_channel], Init::Xavier);
        t.batch_norm(format!("{ego}.1"), d);
        t.linear(format!("{ego}.3"), d, d);
    }
    t.embedding("agent_encoder.type_emb", 4);

    t.points("map_encoder.polygon_encoder", 10);
    t.fourier("map_encoder.speed_limit_emb", 1);
    for (name, categories) in [("type_emb", 3), ("on_route_emb", 2), ("traffic_light_emb", 4), ("unknown_speed_emb", 1)] {
        t.embedding(&format!("map_encoder.{name}"), categories);
    }

    t.fourier("static_objects_encoder.obj_encoder", 2);
    t.embedding("static_objects_encoder.type_emb", 4);

    for i in 0..config.encoder_depth {
        let p = format!("encoder_blocks.{i}");
        t.norm(format!("{p}.norm1"), d);
        t.attention(format!("{p}.attn"));
        t.norm(format!("{p}.norm2"), d);
        t.linear(format!("{p}.mlp.fc1"), d, 4 * d);
        t.linear(format!("{p}.mlp.fc2"), 4 * d, d);
    }
    t.norm("norm".into(), d);

    for name in ["loc_predictor", "yaw_predictor", "vel_predictor"] {
        t.head(&format!("agent_predictor.{name}"), 2 * d, 2 * config.future_steps);
    }

    let p = "planning_decoder";
    t.put(format!("{p}.m_emb"), &[1, 1, config.num_modes, d], MODE);
    t.put(format!("{p}.m_pos"), &[1, config.num_modes, d], MODE);
    for i in 0..config.decoder_depth {
        let q = format!("{p}.decoder_blocks.{i}");
        for name in ["r2r_attn", "m2m_attn", "cross_attn"] {
            t.attention(format!("{q}.{name}"));
        }
        t.linear(format!("{q}.ffn.0"), d, 4 * d);
        t.linear(format!("{q}.ffn.3"), 4 * d, d);
        for k in 1..=4 {
            t.norm(format!("{q}.norm{k}"), d);
        }
    }
    t.fourier(&format!("{p}.r_pos_emb"), 3);
    t.points(&format!("{p}.r_encoder"), 6);
    t.linear(format!("{p}.q_proj"), 2 * d, d);
    if config.cat_x {
        t.linear(format!("{p}.cat_x_proj"), 2 * d, d);
    }
    for name in ["loc_head", "yaw_head", "vel_head"] {
        t.head(&format!("{p}.{name}"), 2 * d, 2 * config.future_steps);
    }
    t.head(&format!("{p}.pi_head"), d, 1);

    if config.use_hidden_proj {
        t.linear("hidden_proj.0".into(), d, d);
        t.linear("hidden_proj.2".into(), d, d);
    }
    if config.ref_free_traj {
        t.head("ref_free_decoder", 2 * d, 4 * config.future_steps);
    }
    t.entries
}

/// The places of all parameters and statistics in their buffers.
pub fn parameters(specifications: &[Specification]) -> Parameters {
    let mut parameters = Parameters::default();
    for s in specifications {
        parameters.push(s.name.clone(), &s.shape, s.statistic);
    }
    parameters
}

/// Initial values of a parameter or statistic. A value depends on the seed and its parameter's name, shape and rule alone, so it is
/// the same whatever other options the model has.
pub fn initial(s: &Specification, seed: u64) -> Vec<f64> {
    let mut numbers = Numbers::new(seed, &s.name);
    let fill = |draw: &mut dyn FnMut() -> f64| (0..s.shape.iter().product()).map(|_| draw()).collect();
    match s.init {
        Init::Constant(value) => fill(&mut || value),
        Init::Xavier => {
            let (outputs, inputs) = (s.shape[0], s.shape[1]);
            let bound = (6.0 / (inputs + outputs) as f64).sqrt();
            fill(&mut || bound * (2.0 * numbers.unit() - 1.0))
        }
        Init::Uniform { inputs } => {
            let bound = 1.0 / (inputs as f64).sqrt();
            fill(&mut || bound * (2.0 * numbers.unit() - 1.0))
        }
        Init::Normal(deviation) => fill(&mut || deviation * numbers.normal()),
        Init::TruncatedNormal(deviation) => fill(&mut || {
            loop {
                let x = deviation * numbers.normal();
                if x.abs() <= 2.0 {
                    break x;
                }
            }
        }),
    }
}

/// Random numbers of one parameter.
struct Numbers {
    step: Step,
    stream: u32,
    block: u32,
    words: [u32; 4],
    used: usize,
}

impl Numbers {
    /// The 64-bit FNV-1a hash of the name keeps the parameters apart.
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self { step: Step { seed, step: hash >> 32 }, stream: hash as u32, block: 0, words: [0; 4], used: 4 }
    }
    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        if self.used == 4 {
            // The row keeps these apart from the numbers of a training step.
            self.words = random::words(&self.step, self.stream, u32::MAX, self.block);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        (f64::from(self.words[self.used - 1]) + 0.5) / 4_294_967_296.0
    }
    /// Standard normal (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.unit(), self.unit());
        (-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    }
}

/// Collects specifications; a method for each kind of layer.
struct Table {
    dim: usize,
    entries: Vec<Specification>,
}

impl Table {
    fn put(&mut self, name: String, shape: &[usize], init: Init) {
        self.entries.push(Specification { name, shape: shape.to_vec(), init, statistic: false });
    }
    fn linear(&mut self, name: String, inputs: usize, outputs: usize) {
        self.put(format!("{name}.weight"), &[outputs, inputs], Init::Xavier);
        self.put(format!("{name}.bias"), &[outputs], ZERO);
    }
    fn norm(&mut self, name: String, width: usize) {
        self.put(format!("{name}.weight"), &[width], ONE);
        self.put(format!("{name}.bias"), &[width], ZERO);
    }
    fn batch_norm(&mut self, name: String, width: usize) {
        self.norm(name.clone(), width);
        for (statistic, init) in [("running_mean", ZERO), ("running_var", ONE)] {
            self.entries.push(Specification { name: format!("{name}.{statistic}"), shape: vec![width], init, statistic: true });
        }
    }
    fn embedding(&mut self, name: &str, categories: usize) {
        self.put(format!("{name}.weight"), &[categories, self.dim], EMBEDDING);
    }
    fn convolution(&mut self, name: String, inputs: usize, outputs: usize, bias: bool) {
        let init = Init::Uniform { inputs: 3 * inputs };
        self.put(format!("{name}.weight"), &[outputs, inputs, 3], init);
        if bias {
            self.put(format!("{name}.bias"), &[outputs], init);
        }
    }
    fn attention(&mut self, name: String) {
        let d = self.dim;
        self.put(format!("{name}.in_proj_weight"), &[3 * d, d], Init::Xavier);
        self.put(format!("{name}.in_proj_bias"), &[3 * d], ZERO);
        self.linear(format!("{name}.out_proj"), d, d);
    }
    fn fourier(&mut self, name: &str, values: usize) {
        let d = self.dim;
        self.put(format!("{name}.freqs.weight"), &[values, BANDS], EMBEDDING);
        for i in 0..values {
            self.linear(format!("{name}.mlps.{i}.0"), 2 * BANDS + 1, d);
            self.norm(format!("{name}.mlps.{i}.1"), d);
            self.linear(format!("{name}.mlps.{i}.3"), d, d);
        }
        self.norm(format!("{name}.to_out.0"), d);
        self.linear(format!("{name}.to_out.2"), d, d);
    }
    fn points(&mut self, name: &str, channels: usize) {
        self.linear(format!("{name}.first_mlp.0"), channels, 128);
        self.batch_norm(format!("{name}.first_mlp.1"), 128);
        self.linear(format!("{name}.first_mlp.3"), 128, 256);
        self.linear(format!("{name}.second_mlp.0"), 512, 256);
        self.batch_norm(format!("{name}.second_mlp.1"), 256);
        self.linear(format!("{name}.second_mlp.3"), 256, self.dim);
    }
    fn head(&mut self, name: &str, hidden: usize, outputs: usize) {
        self.linear(format!("{name}.mlp.0"), self.dim, hidden);
        self.norm(format!("{name}.mlp.1"), hidden);
        self.linear(format!("{name}.mlp.3"), hidden, outputs);
    }
    fn history_encoder(&mut self, name: &str, channels: usize) {
        let d = self.dim;
        let widths = [d / 4, d / 2, d];
        self.convolution(format!("{name}.embed.proj"), channels, widths[0], true);
        for (level, c) in widths.into_iter().enumerate() {
            let (heads, window) = (history_encoder::HEADS[level], history_encoder::WINDOWS[level]);
            for block in 0..2 {
                let p = format!("{name}.levels.{level}.blocks.{block}");
                self.norm(format!("{p}.norm1"), c);
                self.put(format!("{p}.attn.rpb"), &[heads, 2 * window - 1], Init::TruncatedNormal(0.02));
                self.linear(format!("{p}.attn.qkv"), c, 3 * c);
                self.linear(format!("{p}.attn.proj"), c, c);
                self.norm(format!("{p}.norm2"), c);
                self.linear(format!("{p}.mlp.fc1"), c, 3 * c);
                self.linear(format!("{p}.mlp.fc2"), 3 * c, c);
            }
            if level < 2 {
                self.convolution(format!("{name}.levels.{level}.downsample.reduction"), c, 2 * c, false);
                self.norm(format!("{name}.levels.{level}.downsample.norm"), 2 * c);
            }
            self.norm(format!("{name}.norm{level}"), c);
            self.convolution(format!("{name}.lateral_convs.{level}"), c, d, true);
        }
        self.convolution(format!("{name}.fpn_conv"), d, d, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(config: &ModelConfig, seed: u64) -> Vec<(Specification, Vec<f64>)> {
        specifications(config).into_iter().map(|s| (s.clone(), initial(&s, seed))).collect()
    }

    /// Moments of every class of parameter; the bounds are five standard errors.
    #[test]
    fn statistics_of_every_class() {
        let config = ModelConfig { use_hidden_proj: true, cat_x: true, ref_free_traj: true, ..ModelConfig::default() };
        for (s, values) in drawn(&config, 7) {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            let highest = values.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
            let uniform = |bound: f64| {
                assert!(highest <= bound, "{}: {highest} > {bound}", s.name);
                assert!(highest > bound * (1.0 - 20.0 / n), "{}: {highest} does not reach {bound}", s.name);
                // The mean of n numbers deviates by bound / sqrt(3 n), their deviation by bound / sqrt(15 n).
                assert!(mean.abs() <= 5.0 * bound / (3.0 * n).sqrt(), "{}: mean {mean}", s.name);
                assert!((deviation - bound / 3_f64.sqrt()).abs() <= 5.0 * bound / (15.0 * n).sqrt(), "{}: {deviation}", s.name);
            };
            let normal = |expected: f64| {
                assert!(mean.abs() <= 5.0 * expected / n.sqrt(), "{}: mean {mean}", s.name);
                assert!((deviation - expected).abs() <= 5.0 * expected / (2.0 * n).sqrt() + expected / n, "{}: {deviation}", s.name);
                assert!(n < 50.0 || highest > 1.8 * expected, "{}: {highest} for a normal distribution", s.name);
            };
            let leaf = s.name.rsplit('.').next().unwrap();
            let convolution = ["embed.proj", "reduction", "lateral_convs", "fpn_conv"].iter().any(|c| s.name.contains(c));
            let table = s.name.ends_with("emb.weight") || s.name.ends_with("freqs.weight");
            match leaf {
                "running_mean" => assert!(values.iter().all(|&v| v == 0.0)),
                "running_var" => assert!(values.iter().all(|&v| v == 1.0)),
                "m_emb" | "m_pos" => normal(0.01),
                "pos_embed" | "query" | "rpb" => normal(0.02),
                "weight" if table => normal(0.02),
                "weight" if convolution => uniform(1.0 / ((s.shape[1] * 3) as f64).sqrt()),
                "bias" if convolution => {
                    let inputs = match s.name.as_str() {
                        name if name.contains("embed.proj") => 9,
                        name if name.contains("lateral_convs.0") => 32,
                        name if name.contains("lateral_convs.1") => 64,
                        _ => 128,
                    };
                    uniform(1.0 / (3.0 * f64::from(inputs)).sqrt());
                }
                "weight" | "in_proj_weight" if s.shape.len() == 2 => uniform((6.0 / (s.shape[0] + s.shape[1]) as f64).sqrt()),
                "weight" => assert!(values.iter().all(|&v| v == 1.0), "{}", s.name),
                "bias" | "in_proj_bias" => assert!(values.iter().all(|&v| v == 0.0), "{}", s.name),
                other => panic!("no rule for {other}"),
            }
        }
    }

    /// A value depends on the seed and on its own parameter alone.
    #[test]
    fn values_do_not_depend_on_other_options() {
        let plain = drawn(&ModelConfig::default(), 7);
        let other = ModelConfig { use_ego_history: true, encoder_depth: 2, ref_free_traj: true, ..ModelConfig::default() };
        let others = drawn(&other, 7);
        let mut common = 0;
        for (s, values) in &plain {
            if let Some((_, same)) = others.iter().find(|(o, _)| o.name == s.name) {
                assert_eq!(values, same, "{}", s.name);
                common += 1;
            }
        }
        assert!(common > 200, "{common}");
        let reseeded = drawn(&ModelConfig::default(), 8);
        for ((s, a), (_, b)) in plain.iter().zip(&reseeded) {
            assert_eq!(a == b, matches!(s.init, Init::Constant(_)), "{}", s.name);
        }
    }
}
