//! `marquee schemas`: JSON Schemas for producers and consumers in other languages.

use anyhow::{Context, Result, bail};
use marquee_schemas::{ALL_TOPICS, json_schema};

use crate::cli::SchemasArgs;

pub(crate) fn run(args: &SchemasArgs) -> Result<()> {
    if !args.check {
        std::fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    }
    let mut stale = Vec::new();
    for topic in ALL_TOPICS {
        let path = args.out.join(format!("{topic}.schema.json"));
        let text = json_schema::text(topic);
        if args.check {
            if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
                stale.push(path.display().to_string());
            }
        } else {
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    if !stale.is_empty() {
        bail!("out of date, run `marquee schemas`: {}", stale.join(", "));
    }
    Ok(())
}
