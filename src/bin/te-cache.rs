//! Looks at a feature cache: `te-cache list|entries|verify|compact|export FOLDER ...`.

use std::{path::Path, process::ExitCode};
use training_engine::{data::cache::tool, error::Result};

const USAGE: &str = "\
te-cache list FOLDER                      shards: entries, bytes, how their features were built
te-cache entries FOLDER                   scenarios: token, log, type, bytes, shard
te-cache verify FOLDER                    reads everything; fails if something is damaged
te-cache compact FOLDER                   packs what is whole into new shards and removes the old ones
te-cache export FOLDER OUTPUT [TOKEN...]  writes features as OUTPUT/TOKEN.safetensors, all or those of some tokens";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list", folder] => list(Path::new(folder)),
        ["entries", folder] => entries(Path::new(folder)),
        ["verify", folder] => verify(Path::new(folder)),
        ["compact", folder] => compact(Path::new(folder)),
        ["export", folder, output, ..] => export(Path::new(folder), Path::new(output), &arguments[3..]),
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

fn list(folder: &Path) -> Result<bool> {
    println!("{:>9} {:>12} {:>8} {:>8} {:>7}  shard", "entries", "bytes", "radius", "agents", "damaged");
    for shard in tool::list(folder)? {
        let [radius, agents] = match shard.builder {
            Some(builder) => [builder.radius.to_string(), builder.max_agents.to_string()],
            None => ["other".to_owned(), "other".to_owned()],
        };
        let note = if shard.in_use { " (being written)" } else { "" };
        println!("{:>9} {:>12} {radius:>8} {agents:>8} {:>7}  {}{note}", shard.entries, shard.bytes, shard.damaged, shard.name);
    }
    Ok(true)
}

fn entries(folder: &Path) -> Result<bool> {
    for entry in tool::entries(folder)? {
        println!("{}\t{}\t{}\t{}\t{}", entry.token, entry.log_name, entry.scenario_type, entry.bytes, entry.shard);
    }
    Ok(true)
}

fn verify(folder: &Path) -> Result<bool> {
    let found = tool::verify(folder)?;
    found.faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} entries are whole; {} faults", found.whole, found.faults.len());
    Ok(found.faults.is_empty())
}

fn compact(folder: &Path) -> Result<bool> {
    let done = tool::compact(folder)?;
    println!("{} entries kept; {} bytes before, {} now", done.kept, done.before, done.after);
    if done.in_use > 0 {
        println!("{} shards are being written and were left alone", done.in_use);
    }
    Ok(true)
}

fn export(folder: &Path, output: &Path, tokens: &[String]) -> Result<bool> {
    std::fs::create_dir_all(output).map_err(|e| training_engine::error::Error::file(output, e))?;
    let count = tool::features(folder, tokens, |name, features| {
        // A token may hold what no file name may.
        let file: String = name.token.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        tool::export(&output.join(format!("{file}.safetensors")), name, features)
    })?;
    println!("{count} scenarios");
    Ok(true)
}
