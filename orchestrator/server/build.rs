//! Has the node built again when the pages that it embeds are. They are built by `npm run build` in their folders,
//! which needs no part in a build of the node: without them, it says how to get them.

fn main() {
    for page in ["dashboard", "player"] {
        let built = format!("../../web/{page}/dist");
        // Cargo takes a path that is missing for changed each time, and would build the node again for nothing.
        if std::fs::create_dir_all(&built).is_err() {
            println!("cargo:warning={built} cannot be made: the node is built each time");
        }
        println!("cargo:rerun-if-changed={built}");
    }
}
