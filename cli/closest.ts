/** Returns the word most similar to a misspelled one, or undefined if none is similar. */
export function closest(misspelled: string, words: readonly string[]): string | undefined {
  const near = words.map((word) => ({ word, distance: editDistance(misspelled, word) }))
    .filter(({ distance }) => distance <= Math.max(2, Math.floor(misspelled.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return near[0]?.word;
}

/** Returns how many characters must be added, removed or replaced to turn one text into the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 0; i < from.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j++) {
      const replaced = row[j] + (from[i] === to[j] ? 0 : 1);
      next.push(Math.min(replaced, row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row[to.length];
}
