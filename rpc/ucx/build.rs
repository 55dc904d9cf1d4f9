//! Finds the system's UCX with pkg-config and writes bindings to the part of libucp used here.
#![allow(clippy::disallowed_methods)] // A build script writes files.

use std::path::PathBuf;
use std::process::exit;

/// Everything of libucp and libucs that the crate calls.
const FUNCTIONS: [&str; 32] = [
    "ucp_am_data_release",
    "ucp_am_recv_data_nbx",
    "ucp_am_send_nbx",
    "ucp_cleanup",
    "ucp_config_(read|modify|release|print)",
    "ucp_conn_request_query",
    "ucp_ep_close_nbx",
    "ucp_ep_create",
    "ucp_ep_flush_nbx",
    "ucp_ep_print_info",
    "ucp_ep_query",
    "ucp_ep_rkey_unpack",
    "ucp_get_nbx",
    "ucp_get_version",
    "ucp_init_version",
    "ucp_listener_(create|destroy|query|reject)",
    "ucp_mem_(map|unmap)",
    "ucp_put_nbx",
    "ucp_request_free",
    "ucp_rkey_(pack|buffer_release|destroy)",
    "ucp_worker_arm",
    "ucp_worker_create",
    "ucp_worker_destroy",
    "ucp_worker_flush_nbx",
    "ucp_worker_get_efd",
    "ucp_worker_progress",
    "ucp_worker_query",
    "ucp_worker_release_address",
    "ucp_worker_set_am_recv_handler",
    "ucp_worker_signal",
    "ucs_global_opts_set_value",
    "ucs_status_string",
];

/// The enumerations whose values are used.
const CONSTANTS: [&str; 9] = [
    "ucp_am_cb_flags",
    "ucp_am_recv_attr_t",
    "ucp_ep_close_flags_t",
    "ucp_feature",
    "ucp_op_attr_t",
    "ucp_send_am_flags",
    "ucp_worker_flags_t",
    "ucp_.*_field",
    "ucs_(memory_type|thread_mode)_t",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let found = pkg_config::Config::new().atleast_version("1.13").probe("ucx");
    let library = match found {
        Ok(library) => library,
        Err(error) => fail("UCX 1.13 or newer was not found by pkg-config", &error),
    };
    // Before 1.17 the file `ucx.pc` does not name libucs, of which two functions are called.
    for name in ["ucp", "ucs"] {
        if !library.libs.iter().any(|lib| lib == name) {
            println!("cargo:rustc-link-lib={name}");
        }
    }
    let header = "#include <ucp/api/ucp.h>\n#include <ucs/config/global_opts.h>\n";
    let mut builder = bindgen::Builder::default()
        .header_contents("ucx.h", header)
        .clang_args(library.include_paths.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_var("UC[PS]_.*")
        .allowlist_type(CONSTANTS.join("|"))
        .blocklist_type("sockaddr|sockaddr_storage|socklen_t|_IO_FILE|FILE")
        .prepend_enum_name(false)
        .derive_debug(false)
        .layout_tests(true)
        .generate_comments(false);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail("the headers of UCX could not be read", &error),
    };
    let out = std::env::var_os("OUT_DIR").expect("cargo names the folder for built files");
    let file = PathBuf::from(out).join("ucx.rs");
    if let Err(error) = bindings.write_to_file(&file) {
        fail("the bindings could not be written", &error);
    }
}

/// Ends the build with what to do, and without a backtrace of the build script.
fn fail(what: &str, error: &dyn std::fmt::Display) -> ! {
    eprintln!("ogive-ucx: {what}.");
    eprintln!(
        "Install libucx-dev (UCX 1.13 or newer) and libclang-dev, or build without the feature \
         `ucx`: everything then travels over TCP."
    );
    eprintln!("\n{error}");
    exit(1)
}
