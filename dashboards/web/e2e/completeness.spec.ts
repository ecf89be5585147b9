import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import AxeBuilder from '@axe-core/playwright';
import { expect, test, type Page } from '@playwright/test';

const binary = process.env['BINNACLE_BIN'] ?? join(import.meta.dirname, '../../../target/debug/binnacle');
const dir = mkdtempSync(join(tmpdir(), 'binnacle-e2e-completeness-'));
const FILES = {
  cart: 'pods/shop_cart-0_11111111-1111-1111-1111-111111111111/app',
  front: 'pods/shop_front-0_22222222-2222-2222-2222-222222222222/nginx',
  dns: 'pods/kube-system_coredns-5d78c9869d-abcde_33333333-3333-3333-3333-333333333333/coredns',
};
const path = (of: keyof typeof FILES) => join(dir, FILES[of], '0.log');
const size = (...of: (keyof typeof FILES)[]) => of.reduce((sum, one) => sum + statSync(path(one)).size, 0);

let server: ChildProcess;
let url = '';

function write(of: keyof typeof FILES, lines: number) {
  mkdirSync(join(dir, FILES[of]), { recursive: true });
  const now = new Date().toISOString();
  appendFileSync(path(of), Array.from({ length: lines }, (_, i) => `${now} stdout F line ${i} of ${of}\n`).join(''));
}

test.beforeAll(async () => {
  write('cart', 3000);
  write('front', 20);
  write('dns', 5);
  mkdirSync(join(dir, 'containers'));
  const config = join(dir, 'c.yml');
  writeFileSync(config, 'logs:\n- containers: containers\n');
  const args = ['--log-level', 'warn', 'serve', '--listen', '127.0.0.1:0', '--data', join(dir, 'data'), '--config', config];
  server = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  url = await new Promise<string>((resolve, reject) => {
    let said = '';
    server.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const found = /(http:\/\/127\.0\.0\.1:\d+)/.exec(said);
      if (found?.[1]) resolve(found[1]);
    });
    server.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
  });
});

test.afterAll(async () => {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  await ended;
  rmSync(dir, { recursive: true, force: true });
});

function watch(page: Page): string[] {
  const problems: string[] = [];
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  return problems;
}

const bytes = (number: number) => `${number.toLocaleString('en')} bytes`;
const group = (page: Page, name: string) => page.getByTestId('group').filter({ has: page.getByRole('button', { name }) });

test('the bytes of a page are those of the files', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url}/?page=completeness`);
  const summary = page.getByTestId('summary');
  await expect(summary).toHaveText('Nothing is missing', { timeout: 60_000 });
  const shop = group(page, 'shop');
  const all = async (size: number, row = shop) => {
    await expect(row.getByTestId('bytes').first()).toHaveAttribute('title', bytes(size), { timeout: 60_000 });
    await expect(row.getByTestId('acknowledged').first()).toHaveAttribute('title', bytes(size), { timeout: 60_000 });
    await expect(row.getByTestId('gap').first()).toHaveText('0');
    await expect(row.getByTestId('lost').first()).toHaveText('0');
  };
  await all(size('cart', 'front'));
  await all(size('dns'), group(page, 'kube-system'));
  await expect(page.getByTestId('container')).toHaveCount(0);
  // By keys alone.
  await shop.getByRole('button').focus();
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/ns=shop/);
  const cart = page.getByTestId('container').filter({ hasText: 'cart-0' });
  await expect(cart).toContainText(hostname());
  await all(size('cart'), cart);
  // What is written is there after the next report, without a reload.
  write('cart', 500);
  await all(size('cart'), cart);
  await page.reload();
  await all(size('cart'), cart);
  await page.getByTestId('filter').fill(`coredns ${hostname().toUpperCase()}`);
  await expect(page).toHaveURL(/q=coredns/);
  await expect(page.getByTestId('group')).toHaveCount(1);
  await all(size('dns'), page.getByTestId('container'));
  await page.getByTestId('container').getByRole('link').click();
  await expect(page.getByTestId('total')).toHaveText('5');
  expect(problems).toEqual([]);
});

const container = (pod: string, more: object) => ({
  namespace: 'shop', pod, container: 'app', files: 1, bytes: 5000, acknowledged: 5000, gap: 0, lost: 0, refused: 0, behind_seconds: 0, ...more,
});

/** An answer of `GET /api/completeness` with these nodes, summed as the server does. */
async function answer(page: Page, nodes: { node: string; age?: number; containers: ReturnType<typeof container>[] }[]) {
  const all = nodes.flatMap((node) => node.containers);
  const sum = (name: 'bytes' | 'acknowledged' | 'gap' | 'lost' | 'refused') => all.reduce((total, one) => total + one[name], 0);
  const total = {
    bytes: sum('bytes'), acknowledged: sum('acknowledged'), gap: sum('gap'), lost: sum('lost'), refused: sum('refused'),
    behind_seconds: Math.max(0, ...all.map((one) => one.behind_seconds)),
  };
  const said = nodes.map(({ node, age = 3, containers }) => ({
    node, input: 0, age_seconds: age, is_silent: age > 60, is_stopped: false, started: '2026-11-20T10:00:00Z', spool_bytes: 0, containers, journal: null,
  }));
  await page.route('**/api/completeness*', (route) =>
    route.fulfill({ json: { status: 'success', data: { total, namespaces: [], nodes: said } } }),
  );
}

test('files that no pod wrote unfold as others do, and a link shows them', async ({ page }) => {
  const nodes = [{ node: 'n1', containers: [{ ...container('', {}), namespace: '', container: 'kubelet' }] }];
  await answer(page, nodes);
  await page.goto(`${url}/?page=completeness`);
  await page.getByRole('button', { name: 'Files of nodes' }).click();
  const link = page.getByTestId('container').getByRole('link', { name: 'kubelet' });
  await expect(link).toBeVisible();
  await page.reload();
  await expect(link).toHaveAttribute('href', `/?${new URLSearchParams({ q: 'service:"kubelet" node:"n1"' })}`);
});

const STATES: { name: string; nodes: Parameters<typeof answer>[1]; says: RegExp; first?: RegExp }[] = [
  { name: 'none', nodes: [], says: /^No collector reports$/ },
  {
    name: 'just written',
    nodes: [{ node: 'n1', containers: [container('a', { gap: 900, acknowledged: 4100, behind_seconds: 1.4 })] }],
    says: /^Nothing is missing$/,
    first: /^a/,
  },
  {
    name: 'behind',
    nodes: [{ node: 'n1', containers: [container('a', {}), container('b', { gap: 900, behind_seconds: 240 })] }],
    says: /^4 min behind$/,
    first: /^b/,
  },
  {
    name: 'silent',
    nodes: [{ node: 'n1', containers: [container('a', {})] }, { node: 'n2', age: 300, containers: [container('b', {})] }],
    says: /^A node is silent$/,
    first: /^b/,
  },
  {
    name: 'silent and behind',
    nodes: [
      { node: 'n1', containers: [container('a', { gap: 900, behind_seconds: 240 })] },
      { node: 'n2', age: 300, containers: [container('b', {})] },
    ],
    says: /^A node is silent, others 4 min behind$/,
  },
  {
    name: 'refused',
    nodes: [{ node: 'n1', containers: [container('a', {}), container('b', { refused: 2048 })] }],
    says: /^2\.0 KiB refused$/,
    first: /^b/,
  },
  {
    name: 'lost',
    nodes: [
      { node: 'n1', containers: [container('a', { behind_seconds: 240, gap: 9 }), container('', { files: 0, lost: 2048 })] },
      { node: 'n2', age: 300, containers: [container('b', {})] },
    ],
    says: /^2\.0 KiB lost$/,
    first: /^pods that are gone/,
  },
];

for (const { name, nodes, says, first } of STATES) {
  test(`${name}: one glance says it, the worst is first`, async ({ page }) => {
    await answer(page, nodes);
    await page.goto(`${url}/?page=completeness&ns=shop`);
    await expect(page.getByTestId('summary')).toHaveText(says);
    await expect(page.getByTestId('silent')).toHaveCount(nodes.some((node) => (node.age ?? 0) > 60) ? 1 : 0);
    if (first) await expect(page.getByTestId('container').first()).toHaveText(first);
    for (const scheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme: scheme });
      const found = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag22aa']).analyze();
      expect(found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`)).toEqual([]);
    }
    await page.setViewportSize({ width: 400, height: 800 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    expect(wide, 'it scrolls sideways on a phone').toBe(false);
    await expect(page.getByRole('link', { name: 'Completeness' })).toBeInViewport({ ratio: 1 });
  });
}

test('a server that is away is said, and what was known stays', async ({ page }) => {
  await answer(page, [{ node: 'n1', containers: [container('a', {})] }]);
  await page.goto(`${url}/?page=completeness`);
  await expect(page.getByTestId('summary')).toHaveText('Nothing is missing');
  await page.route('**/api/completeness*', (route) => route.abort());
  await expect(page.getByTestId('error')).toContainText('cannot be reached. What is shown is of 20');
  await expect(page.getByTestId('group')).toHaveCount(1);
});
