/** An ordered map of objects by their keys. At most some thousand entries: binary search in an array. */
import { compareKeys, type ObjectKey } from "../media/object.js";

export class KeyMap<V> {
  private readonly keys: ObjectKey[] = [];
  private readonly values: V[] = [];

  get size(): number {
    return this.keys.length;
  }

  /** The place of the first key that is not less. */
  private place(key: ObjectKey): number {
    let [low, high] = [0, this.keys.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const at = this.keys[middle];
      if (at && compareKeys(at, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  get(key: ObjectKey): V | undefined {
    const place = this.place(key);
    const found = this.keys[place];
    return found && compareKeys(found, key) === 0 ? this.values[place] : undefined;
  }

  set(key: ObjectKey, value: V): void {
    const place = this.place(key);
    const found = this.keys[place];
    const known = found !== undefined && compareKeys(found, key) === 0 ? 1 : 0;
    this.keys.splice(place, known, key);
    this.values.splice(place, known, value);
  }

  delete(key: ObjectKey): boolean {
    const place = this.place(key);
    const found = this.keys[place];
    if (!found || compareKeys(found, key) !== 0) return false;
    this.keys.splice(place, 1);
    this.values.splice(place, 1);
    return true;
  }

  /** The first entry that is not less than a key. */
  atOrAfter(key: ObjectKey): [ObjectKey, V] | undefined {
    return this.at(this.place(key));
  }

  /** The first entry that is greater than a key. */
  after(key: ObjectKey): [ObjectKey, V] | undefined {
    const place = this.place(key);
    const found = this.keys[place];
    return this.at(found && compareKeys(found, key) === 0 ? place + 1 : place);
  }

  private at(place: number): [ObjectKey, V] | undefined {
    const [key, value] = [this.keys[place], this.values[place]];
    return key && value !== undefined ? [key, value] : undefined;
  }

  /** The entries of a track, in order, as they are now. */
  ofTrack(track: number): [ObjectKey, V][] {
    const entries: [ObjectKey, V][] = [];
    const first: ObjectKey = { track, epoch: 0, kind: "init", sequence: 0n, part: 0 };
    for (let place = this.place(first); this.keys[place]?.track === track; place++) {
      const entry = this.at(place);
      if (entry) entries.push(entry);
    }
    return entries;
  }

  entries(): [ObjectKey, V][] {
    return this.keys.flatMap((_, place) => {
      const entry = this.at(place);
      return entry ? [entry] : [];
    });
  }
}
