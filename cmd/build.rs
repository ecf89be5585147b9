//! Says what is missing where the page was not built.

fn main() {
    println!("cargo::rerun-if-changed=../dashboards/web/dist");
    let wants_page = std::env::var_os("CARGO_FEATURE_UI").is_some();
    if wants_page && !std::path::Path::new("../dashboards/web/dist/index.html").exists() {
        println!(
            "cargo::error=the web page is not built: run `make ui`, or build with --no-default-features"
        );
    }
}
