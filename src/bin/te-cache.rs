//! Looks at a feature cache: `te-cache list|entries|verify|compact|export CACHE ...`. A cache is a folder, or s3://bucket/prefix.

use std::{collections::HashSet, path::Path, process::ExitCode};
use training_engine::{
    data::cache::{Name, tool},
    error::Result,
};

const USAGE: &str = "\
te-cache list CACHE                       shards: entries, bytes, how their features were built
te-cache entries CACHE                    scenarios: token, log, type, bytes, shard
te-cache verify CACHE                     reads everything; fails if something is damaged
te-cache compact CACHE                    packs what is whole into new shards and removes the old ones
te-cache export CACHE OUTPUT [TOKEN...]   writes features as OUTPUT/TOKEN.safetensors, all or those of some tokens; where several
                                          have one token, the others as OUTPUT/TOKEN.LOG.safetensors, then with a number";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list", cache] => list(cache),
        ["entries", cache] => entries(cache),
        ["verify", cache] => verify(cache),
        ["compact", cache] => compact(cache),
        ["export", cache, output, ..] => export(cache, Path::new(output), &arguments[3..]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("te-cache: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list(cache: &str) -> Result<bool> {
    println!("{:>9} {:>12} {:>8} {:>8} {:>7}  shard", "entries", "bytes", "radius", "agents", "damaged");
    for shard in tool::list(cache)? {
        let [radius, agents] = match shard.builder {
            Some(builder) => [builder.radius.to_string(), builder.max_agents.to_string()],
            None => ["other".to_owned(), "other".to_owned()],
        };
        let note = if shard.in_use { " (being written)" } else { "" };
        println!("{:>9} {:>12} {radius:>8} {agents:>8} {:>7}  {}{note}", shard.entries, shard.bytes, shard.damaged, shard.name);
    }
    Ok(true)
}

fn entries(cache: &str) -> Result<bool> {
    for entry in tool::entries(cache)? {
        println!("{}\t{}\t{}\t{}\t{}", entry.token, entry.log_name, entry.scenario_type, entry.bytes, entry.shard);
    }
    Ok(true)
}

fn verify(cache: &str) -> Result<bool> {
    let found = tool::verify(cache)?;
    found.faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} entries are whole; {} faults", found.whole, found.faults.len());
    Ok(found.faults.is_empty())
}

fn compact(cache: &str) -> Result<bool> {
    let done = tool::compact(cache)?;
    println!("{} entries kept; {} bytes before, {} now", done.kept, done.before, done.after);
    if done.in_use > 0 {
        println!("{} shards are being written and were left alone", done.in_use);
    }
    if done.unknown > 0 {
        println!("{} shards do not say how their features were built and were left alone", done.unknown);
    }
    Ok(true)
}

fn export(cache: &str, output: &Path, tokens: &[String]) -> Result<bool> {
    std::fs::create_dir_all(output).map_err(|e| training_engine::error::Error::file(output, e))?;
    let mut files = HashSet::new();
    let taken = tool::features(cache, tokens, |name, features| {
        tool::export(&output.join(format!("{}.safetensors", new_file(&mut files, name))), name, features)
    })?;
    println!("{} scenarios", taken.count);
    if taken.other > 0 {
        println!("{} entries of another version of the library were left out", taken.other);
    }
    Ok(true)
}

/// A file name of its own for a scenario: its token, where that is taken with its log, then with a number.
fn new_file(files: &mut HashSet<String>, name: &Name) -> String {
    // A token may hold what no file name may.
    let fit = |text: &str| text.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect::<String>();
    let (token, log) = (fit(name.token), fit(name.log_name));
    let names = [token.clone(), format!("{token}.{log}")].into_iter().chain((2..).map(|number| format!("{token}.{log}.{number}")));
    names.into_iter().find(|file| files.insert(file.clone())).unwrap_or(token)
}
