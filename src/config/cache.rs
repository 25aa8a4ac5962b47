//! Features on disk.

/// Where features are cached, by the published names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheConfig {
    /// Folder of the cache; none caches nothing.
    pub cache_path: Option<String>,
    /// Compute features anew although they are cached.
    pub force_feature_computation: bool,
    /// Empty the cache first.
    pub cleanup_cache: bool,
    /// Take the scenarios from the cache alone: the source is not called and may be absent.
    pub use_cache_without_dataset: bool,
}
