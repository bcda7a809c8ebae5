//! Has the node built again when the pages that it embeds are. They are built by `npm run build` in their folders,
//! which needs no part in a build of the node: without them, it says how to get them.

fn main() {
    for page in ["dashboard", "player"] {
        println!("cargo:rerun-if-changed=../../web/{page}/dist");
    }
}
