/** A track's statements in the order in which they came: children are told by their place in it. */
import { compareKeys, type ObjectKey } from "../media/object.js";
import type { SignedStatement } from "../media/statement.js";

const MAX_ENTRIES = 2_048;

export class StatementLog {
  private readonly entries: SignedStatement[] = [];
  private first = 0;

  push(statement: SignedStatement): void {
    if (this.entries.length === MAX_ENTRIES) {
      this.entries.shift();
      this.first += 1;
    }
    this.entries.push(statement);
  }

  /** The entry at a place or the first after it, and the place behind that. */
  at(serial: number): { statement: SignedStatement; next: number } | undefined {
    const place = Math.max(serial, this.first);
    const statement = this.entries[place - this.first];
    return statement && { statement, next: place + 1 };
  }

  placeOf(object: ObjectKey | undefined): number {
    if (!object) return this.first;
    const about = this.entries.findIndex(
      ({ statement }) => statement.type === "object" && compareKeys(statement.key, object) >= 0,
    );
    return this.first + (about < 0 ? this.entries.length : about);
  }
}
