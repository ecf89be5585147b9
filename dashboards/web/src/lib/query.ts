// Changes to a log query by a click.

/** A value as the query language needs it: in quotes, unless it is a plain word. */
export function quoted(value: string): string {
  return /^[\p{L}\p{N}_][\p{L}\p{N}_.-]*$/u.test(value) && !/^(AND|OR|NOT|TO)$/.test(value)
    ? value
    : `"${value.replace(/\\/g, '\\\\').replace(/"/g, '\\"')}"`;
}

/** Adds a condition on a field, or its opposite; takes away the same one if it is there. */
export function withField(query: string, field: string, value: string, exclude: boolean): string {
  return withCondition(query, `${field.replace(/([\\:()" ])/g, '\\$1')}:${quoted(value)}`, exclude);
}

/** Adds that an entry has, or has not, a field. */
export function withMissing(query: string, field: string, exclude: boolean): string {
  return withCondition(query, `_exists_:${field.replace(/([\\:()" ])/g, '\\$1')}`, !exclude);
}

/** Adds the constant text of a pattern, as phrases, or its opposite. */
export function withPattern(query: string, pattern: string, exclude: boolean): string {
  const texts = pattern.split('<_>').filter((text) => /[\p{L}\p{N}]/u.test(text));
  const phrases = texts.map((text) => `"${text.trim().replace(/\\/g, '\\\\').replace(/"/g, '\\"')}"`);
  if (phrases.length === 0) return query;
  return withCondition(query, phrases.length === 1 ? phrases.join('') : `(${phrases.join(' AND ')})`, exclude);
}

function withCondition(query: string, condition: string, exclude: boolean): string {
  const wanted = exclude ? `-${condition}` : condition;
  const opposite = exclude ? condition : `-${condition}`;
  const kept = query.trim();
  if (` ${kept} `.includes(` ${wanted} `)) return kept;
  if (` ${kept} `.includes(` ${opposite} `)) {
    return ` ${kept} `.replace(` ${opposite} `, () => ` ${wanted} `).trim();
  }
  // An OR on the top level would swallow the new condition.
  const needsParens = / OR | \|\| /.test(kept) && !/^\(.*\)$/.test(kept);
  const before = needsParens ? `(${kept})` : kept;
  return before ? `${before} ${wanted}` : wanted;
}

/** Pieces of a message, those that the query asked for marked. */
export function marked(text: string, highlights: string[]): { text: string; mark: boolean }[] {
  const words = highlights.filter((word) => word.length > 0);
  if (words.length === 0) return [{ text, mark: false }];
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  escaped.sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${escaped.join('|')})`, 'giu');
  const pieces = text.split(pattern);
  return pieces.map((piece, i) => ({ text: piece, mark: i % 2 === 1 })).filter((piece) => piece.text);
}
