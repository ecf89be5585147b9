import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Starts the demo on a free port; answers how to stop it. */
export default async function start(): Promise<() => Promise<void>> {
  const data = mkdtempSync(join(tmpdir(), 'binnacle-e2e-'));
  const binary = process.env['BINNACLE_BIN'] ?? join(import.meta.dirname, '../../../target/debug/binnacle');
  const args = ['--log-level', 'warn', 'demo', '--data', data, '--listen', '127.0.0.1:0'];
  const server = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const url = await new Promise<string>((resolve, reject) => {
    let said = '';
    server.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const found = /ready at (http:\S+)/.exec(said);
      if (found?.[1]) resolve(found[1]);
    });
    server.on('error', reject);
    server.on('exit', (code) => reject(new Error(`the demo ended with ${code}: ${said}`)));
  });
  process.env['BINNACLE_URL'] = url;
  // Something to look at, and a moment up to which nothing more comes, while the demo writes on.
  const pods = ['payment', 'cart', 'front'];
  await Promise.all(pods.map((pod) => has(url, `service:${pod}`, 60)));
  const until = new Date();
  process.env['BINNACLE_UNTIL'] = until.toISOString();
  // A file is read in its order: a line that is later by more than what writers differ has all lines before it.
  const later = new Date(until.getTime() + 1000).toISOString();
  await Promise.all(pods.map((pod) => has(url, `service:${pod} timestamp:>"${later}"`, 1)));
  return async () => {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await ended;
    rmSync(data, { recursive: true, force: true });
  };
}

/** Waits until a search finds `least` lines or more. */
async function has(url: string, q: string, least: number): Promise<void> {
  for (let tries = 0; tries < 240; tries++) {
    const response = await fetch(`${url}/api/logs/search?${new URLSearchParams({ q })}`);
    const answer = (await response.json()) as { data?: { total: number } };
    if ((answer.data?.total ?? 0) >= least) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error(`the demo has not ${least} lines of ${q} after a minute`);
}
