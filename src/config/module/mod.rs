//! What trains the network: PLUTO's own trainer, or the standard module, whose objectives, metrics, optimiser and schedule
//! the configuration says.
//!
//! PLUTO's trainer it is unless `custom_trainer` is null, or `objective` names one and `custom_trainer._target_` is not given.

pub(super) mod keys;
mod setting;

/// Which module trains the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ModuleKind {
    /// PLUTO's losses and metrics, AdamW, warm-up and cosine per epoch (`custom_trainer`).
    #[default]
    Pluto,
    /// Everything from `objective`, `training_metric`, `optimizer`, `lr_scheduler`, `warm_up_lr_scheduler`.
    Standard,
}

/// Declares an enum of things that a group of the configuration lists, with their names and published classes.
macro_rules! listed {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal $(key $key:literal)? $(class $class:literal)?),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$doc])* $variant),+
        }
        impl $type {
            /// All of them.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];
            /// Name under which it is logged.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
            /// The one with this name, key in the group, or published class.
            pub fn find(text: &str) -> Option<Self> {
                match text {
                    $($name $(| $key)? $(| $class)? => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

listed! {
    /// A loss that the standard module can sum up.
    Objective {
        /// Of the ego's positions (squared) and heading (absolute).
        Imitation = "imitation_objective" class "ImitationObjective",
        /// Of the other agents' poses (squared). Its published name has no `s`.
        AgentsImitation = "agent_imitation_objective" key "agents_imitation_objective" class "AgentsImitationObjective",
        /// Of the ego's positions and heading (absolute), later steps counting less.
        DecayingImitation = "trajectory_weight_decay_imitation_objective" class "TrajectoryWeightDecayImitationObjective",
        /// PLUTO's.
        Regression = "reg_loss",
        /// PLUTO's.
        Classification = "cls_loss",
        /// PLUTO's.
        ReferenceFree = "ref_free_reg_loss",
        /// PLUTO's.
        Collision = "collision_loss",
        /// PLUTO's.
        Prediction = "prediction_loss",
        /// PLUTO's.
        Contrastive = "contrastive_loss",
    }
}

listed! {
    /// A metric that the standard module can log.
    Metric {
        /// Mean distance of the ego's most probable candidate.
        AverageDisplacement = "avg_displacement_error" class "AverageDisplacementError",
        /// Its distance at the last step.
        FinalDisplacement = "final_displacement_error" class "FinalDisplacementError",
        /// Mean error of its heading.
        AverageHeading = "avg_heading_error" class "AverageHeadingError",
        /// Error of its heading at the last step.
        FinalHeading = "final_heading_error" class "FinalHeadingError",
        /// As for the ego, of the other agents.
        AgentsAverageDisplacement = "agents_avg_displacement_error" class "AgentsAverageDisplacementError",
        /// As for the ego, of the other agents.
        AgentsFinalDisplacement = "agents_final_displacement_error" class "AgentsFinalDisplacementError",
        /// As for the ego, of the other agents.
        AgentsAverageHeading = "agents_avg_heading_error" class "AgentsAverageHeadingError",
        /// As for the ego, of the other agents.
        AgentsFinalHeading = "agents_final_heading_error" class "AgentsFinalHeadingError",
        /// PLUTO's.
        MinAde = "minADE",
        /// PLUTO's.
        MinFde = "minFDE",
        /// PLUTO's.
        MissRate = "MR",
        /// PLUTO's.
        PredAvgAde = "PredAvgADE",
        /// PLUTO's.
        PredAvgFde = "PredAvgFDE",
    }
}

/// An objective with its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// What.
    pub objective: Objective,
    /// Factor of its value.
    pub weight: f64,
}

/// How the values of several objectives make one loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Optimiser of the standard module, with the published defaults. One group: everything decays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StandardOptimizer {
    /// Formula.
    pub kind: OptimizerKind,
    /// Learning rate, before a schedule.
    pub lr: f64,
    /// Weight decay; none takes 5e-4, with [`OptimizerKind::Sgd`] 1e-5.
    pub weight_decay: Option<f64>,
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the last step that is kept.
    pub momentum: f64,
    /// Share of the gradient that is left out of a step.
    pub dampening: f64,
    /// Look ahead.
    pub nesterov: bool,
}

/// Formulas of the standard module's optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Moments of gradient and penalty; reads `betas` and `eps`.
    Adam,
    /// Weight decay apart from the moments; reads `betas` and `eps`.
    AdamW,
    /// Gradient descent; reads `momentum`, `dampening` and `nesterov`.
    Sgd,
}

impl Default for StandardOptimizer {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adam,
            lr: 5e-5,
            weight_decay: None,
            betas: [0.9, 0.999],
            eps: 1e-8,
            momentum: 0.95,
            dampening: 0.0,
            nesterov: true,
        }
    }
}

impl StandardOptimizer {
    /// Weight decay with its default.
    pub fn decay(&self) -> f64 {
        self.weight_decay.unwrap_or(if self.kind == OptimizerKind::Sgd { 1e-5 } else { 5e-4 })
    }
}

/// Learning rate of the standard module over time, with the published defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleConfig {
    /// Which.
    pub kind: ScheduleKind,
    /// `OneCycleLR`.
    pub one_cycle: OneCycle,
    /// `MultiStepLR`: epochs.
    pub milestones: Vec<usize>,
    /// `MultiStepLR`: factor at each.
    pub gamma: f64,
    /// Before it.
    pub warm_up: WarmUp,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            one_cycle: OneCycle::default(),
            milestones: vec![100, 170],
            gamma: 0.1,
            warm_up: WarmUp::default(),
        }
    }
}

/// Schedules of the standard module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleKind {
    /// The optimiser's rate.
    Constant,
    /// Up to the optimiser's rate and down again, once in the whole run.
    OneCycle,
    /// Times a factor at every milestone.
    MultiStep,
}

/// `OneCycleLR`. The highest rate is the optimiser's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    /// Epochs of the run, and batches between two steps of the schedule; none takes the trainer's.
    pub epochs: Option<usize>,
    /// Steps of the schedule in an epoch; none takes what the number of batches gives.
    pub steps_per_epoch: Option<usize>,
    /// Share of the steps that go up.
    pub pct_start: f64,
    /// How the rate goes up and down.
    pub anneal_strategy: Anneal,
    /// Momentum (b₁ of Adam) goes the other way.
    pub cycle_momentum: bool,
    /// Where the rate is highest.
    pub base_momentum: f64,
    /// At the start and the end.
    pub max_momentum: f64,
    /// Highest rate / first rate.
    pub div_factor: f64,
    /// First rate / last rate.
    pub final_div_factor: f64,
}

/// How a value goes from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
}

impl Default for OneCycle {
    fn default() -> Self {
        Self {
            epochs: None,
            steps_per_epoch: None,
            pct_start: 0.25,
            anneal_strategy: Anneal::Cosine,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
            div_factor: 10.0,
            final_div_factor: 10.0,
        }
    }
}

/// Warm-up before the schedule of the standard module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmUp {
    /// Steps of the schedule (epochs, or with one cycle so many batches); 0 does without.
    pub steps: usize,
    /// How.
    pub strategy: WarmUpStrategy,
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { steps: 0, strategy: WarmUpStrategy::Linear }
    }
}

/// How the rate warms up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmUpStrategy {
    /// A straight line from 0.
    Linear,
    /// 1 / `steps` of the rate all the way.
    Constant,
}
