//! Says what is missing where the page was not built, or was built from other sources.

use std::path::Path;
use std::time::SystemTime;

const WEB: &str = "../dashboards/web";

fn main() {
    println!("cargo::rerun-if-changed={WEB}/dist");
    println!("cargo::rerun-if-changed={WEB}/src");
    if std::env::var_os("CARGO_FEATURE_UI").is_none() {
        return;
    }
    let page = Path::new(WEB).join("dist/index.html");
    match page.metadata().and_then(|about| about.modified()) {
        Err(_) => println!(
            "cargo::error=the web page is not built: run `make ui`, or build with --no-default-features"
        ),
        Ok(built) if newest(&Path::new(WEB).join("src")).is_some_and(|changed| changed > built) => {
            println!("cargo::warning=the web page is older than its sources: run `make ui`");
        }
        Ok(_) => {}
    }
}

/// When a file in a folder was changed last.
fn newest(folder: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let of = |file: std::fs::DirEntry| {
        let about = file.metadata().ok()?;
        if about.is_dir() { newest(&file.path()) } else { about.modified().ok() }
    };
    files.filter_map(of).max()
}
