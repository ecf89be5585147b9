/** Without a terminal's colours; direction marks and control characters made visible. */
export const safe = (text: string) =>
  text
    .replace(/\u001b\[[\d;]*m/g, '')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, '\u25ae');
