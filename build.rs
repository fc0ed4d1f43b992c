//! Links the unwinder into the programs instead of loading it from libgcc_s.so at every start. It is
//! used for backtraces only, and loading it costs `sendmail` a tenth of its time.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|name| name == "gnu") {
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}
