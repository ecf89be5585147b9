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
  // Something to look at: a query's answer means that lines and samples have come.
  for (let tries = 0; tries < 120; tries++) {
    const answer = await fetch(`${url}/api/logs/search?q=service:payment`).then((response) => response.json());
    if (answer.data?.total > 20) break;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  return async () => {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await ended;
    rmSync(data, { recursive: true, force: true });
  };
}
