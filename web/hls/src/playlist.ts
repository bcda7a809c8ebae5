/** Writes a track's media playlist from what was signed: the origin's lines, with absolute URIs. */
import { initOf, type Descriptor, type TrackHeader } from "@espalier/client";

/** The playlist of a track's segments, which are in order; `init` finds the init section that one needs. */
export function mediaPlaylist(
  header: TrackHeader,
  segments: readonly Descriptor[],
  init: (segment: Descriptor) => Descriptor | undefined,
): string {
  const first = segments[0];
  if (!first) return "";
  const lines = [
    "#EXTM3U",
    ...header.lines,
    `#EXT-X-MEDIA-SEQUENCE:${first.key.sequence}`,
    `#EXT-X-DISCONTINUITY-SEQUENCE:${first.discontinuitySequence}`,
  ];
  let [keys, map] = ["", ""];
  for (const segment of segments) {
    const nextKeys = segment.keyLines.join("\n");
    if (nextKeys !== keys) lines.push(nextKeys || "#EXT-X-KEY:METHOD=NONE");
    const section = initOf(segment) && init(segment);
    const nextMap = section ? mapLine(section) : "";
    if (nextMap && nextMap !== map) lines.push(nextMap);
    [keys, map] = [nextKeys, nextMap];
    lines.push(...segment.lines);
    const range = segment.byteRange;
    if (range) lines.push(`#EXT-X-BYTERANGE:${range.length}@${range.offset}`);
    lines.push(segment.uri);
  }
  const { endSequence } = header;
  if (endSequence !== undefined && (segments.at(-1)?.key.sequence ?? 0n) >= endSequence)
    lines.push("#EXT-X-ENDLIST");
  return `${lines.join("\n")}\n`;
}

/** A media playlist with its segments' URIs absolute; a master playlist as it is. */
export function withAbsoluteUris(text: string, base: string): string {
  if (!text.includes("#EXTINF")) return text;
  const line = (line: string) => {
    const uri = line.trim();
    if (!uri || uri.startsWith("#")) return line;
    return URL.canParse(uri, base) ? new URL(uri, base).href : line;
  };
  return text.split("\n").map(line).join("\n");
}

function mapLine({ uri, byteRange }: Descriptor): string {
  const range = byteRange ? `,BYTERANGE="${byteRange.length}@${byteRange.offset}"` : "";
  return `#EXT-X-MAP:URI="${uri}"${range}`;
}
