// Writes what a build has made where it differs from what is there: the node that embeds it is built again only then.
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** Makes `directory` hold these files, by path, and no others. */
export async function put(directory, files) {
  await mkdir(directory, { recursive: true });
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && !files.has(path.slice(directory.length + 1))) await rm(path);
  }
  for (const [name, contents] of files) {
    const path = join(directory, name);
    const known = await readFile(path).catch(() => undefined);
    if (known?.equals(Buffer.from(contents))) continue;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, contents);
  }
}
