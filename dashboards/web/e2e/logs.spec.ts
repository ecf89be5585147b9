import AxeBuilder from '@axe-core/playwright';
import { expect, test, type Page } from '@playwright/test';

const url = () => process.env['BINNACLE_URL'] ?? '';

function watch(page: Page): string[] {
  const problems: string[] = [];
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  return problems;
}

const number = (text: string) => Number(text.replaceAll(',', ''));
const total = async (page: Page) => number(await page.getByTestId('total').innerText());

/** The page over a span of which all lines are stored, so that counts stand still. */
async function open(page: Page, params: Record<string, string> = {}) {
  const to = process.env['BINNACLE_UNTIL'] ?? '';
  const span = { from: new Date(Date.parse(to) - 3_600_000).toISOString(), to };
  await page.goto(`${url()}/?${new URLSearchParams({ ...span, ...params })}`);
  await expect(page.getByTestId('status')).toContainText(/in \d+ ms/);
}

const settled = (page: Page) => expect(page.getByTestId('status')).toContainText(/in \d+ ms/);

test('facets count all matches, and a click adds or excludes a value', async ({ page }) => {
  const problems = watch(page);
  await open(page, { q: 'namespace:shop' });
  const all = await total(page);
  const values = page.getByTestId('facet-service').getByRole('listitem');
  await expect(values.filter({ hasText: 'payment' })).toBeVisible();
  const counts = await values.locator('.count').allInnerTexts();
  expect(counts.map(number).reduce((a, b) => a + b, 0), 'the counts are of all matches').toBe(all);
  const payment = values.filter({ hasText: 'payment' });
  const of = number(await payment.locator('.count').innerText());
  await payment.getByRole('button').first().click();
  await expect(page.getByTestId('query')).toHaveValue('namespace:shop service:payment');
  await expect.poll(() => total(page)).toBe(of);
  await page.goBack();
  await expect.poll(() => total(page)).toBe(all);
  await page.getByRole('button', { name: 'Exclude service payment' }).click();
  await expect(page.getByTestId('query')).toHaveValue('namespace:shop -service:payment');
  await expect.poll(() => total(page)).toBe(all - of);
  // Those without a value are counted as well, and can be had alone.
  await page.goBack();
  await expect.poll(() => total(page)).toBe(all);
  const none = page.getByTestId('facet-level').getByRole('listitem').filter({ hasText: 'none' });
  const without = number(await none.locator('.count').innerText());
  await none.getByRole('button').first().click();
  await expect(page.getByTestId('query')).toHaveValue('namespace:shop -_exists_:level');
  await expect.poll(() => total(page)).toBe(without);
  expect(problems).toEqual([]);
});

test('facets are used by keys alone', async ({ page }) => {
  await open(page, { q: 'namespace:shop', open: 'service' });
  const service = page.getByRole('button', { name: /^service text/ });
  await expect(page.getByTestId('facet-service')).toBeVisible();
  await service.focus();
  await page.keyboard.press('ArrowDown');
  await expect(page.getByTestId('facet-service').getByRole('button').first()).toBeFocused();
  const value = await page.getByTestId('facet-service').locator('.value .label').first().innerText();
  await page.keyboard.press('x');
  await expect(page.getByTestId('query')).toHaveValue(`namespace:shop -service:${value}`);
});

test('fields have types, are found by name, and become columns', async ({ page }) => {
  const problems = watch(page);
  await open(page, { q: 'service:payment "charge accepted"' });
  const fields = page.getByTestId('fields');
  await expect(fields.getByRole('button', { name: /latency_ms number/ })).toBeVisible();
  await expect(fields.getByRole('button', { name: /trace_id text/ })).toBeVisible();
  await fields.getByRole('searchbox').fill('lat');
  await expect(fields.getByRole('button', { name: /trace_id/ })).toHaveCount(0);
  await fields.getByRole('button', { name: 'Column latency_ms' }).click();
  await expect(page).toHaveURL(/cols=pod%2Clatency_ms/);
  await expect(page.getByRole('columnheader', { name: /latency_ms/ })).toBeVisible();
  await expect(page.getByTestId('row').first().locator('.cell').nth(1)).toHaveText(/^\d+(\.\d+)?$/);
  await fields.getByRole('button', { name: /latency_ms number/ }).click();
  await expect(page.getByTestId('facet-latency_ms').getByRole('listitem').first()).toBeVisible();
  await page.getByRole('button', { name: 'Remove column pod' }).click();
  await expect(page.getByRole('columnheader', { name: /pod/ })).toHaveCount(0);
  await page.reload();
  await expect(page.getByRole('columnheader', { name: /latency_ms/ })).toBeVisible();
  await expect(page.getByTestId('facet-latency_ms')).toBeVisible();
  expect(problems).toEqual([]);
});

test('patterns have counts that a click on them finds again', async ({ page }) => {
  const problems = watch(page);
  await open(page, { q: 'namespace:shop', view: 'patterns' });
  const one = page.getByTestId('pattern').filter({ hasText: 'charge accepted' }).first();
  await expect(one).toBeVisible();
  await expect(one.locator('polyline')).toBeVisible();
  await expect(one).toContainText('%');
  const count = number(await one.locator('b').innerText());
  await one.locator('.template').click();
  await expect(page.getByTestId('query')).toHaveValue(/charge accepted/);
  await settled(page);
  await expect.poll(() => total(page)).toBe(count);
  await expect(page.getByTestId('row').first()).toContainText('charge accepted');
  await page.goBack();
  await page.getByRole('combobox', { name: 'Which patterns' }).selectOption('now-15m');
  await expect(page).toHaveURL(/since=now-15m/);
  await expect(page.getByTestId('patterns')).toContainText(/new/);
  await page.getByRole('combobox', { name: 'Which patterns' }).selectOption('');
  await expect(one).toBeVisible();
  const before = await total(page);
  await one.getByRole('button', { name: 'Exclude this pattern' }).click();
  await expect.poll(() => total(page)).toBe(before - count);
  await expect(page.getByTestId('pattern').filter({ hasText: 'charge accepted' })).toHaveCount(0);
  expect(problems).toEqual([]);
});

test('the lines around a row are those of its file, and more of them come on both sides', async ({ page }) => {
  const problems = watch(page);
  await open(page, { q: 'service:payment level:info' });
  // Far enough from the end that there are lines after it.
  await page.getByTestId('row').nth(12).click();
  const message = await page.getByTestId('row').nth(12).locator('.message').innerText();
  await page.getByRole('button', { name: 'Lines around it' }).click();
  const lines = page.getByTestId('context-line');
  await expect(lines.first()).toBeVisible();
  const current = page.locator('[data-testid=context-line][aria-current]');
  await expect(current).toContainText(message.slice(0, 60));
  const texts = await lines.allInnerTexts();
  const at = texts.findIndex((text) => text.includes(message.slice(0, 60)));
  expect(at).toBeGreaterThan(0);
  expect(at).toBeLessThan(texts.length - 1);
  const [offset, file] = (new URL(page.url()).searchParams.get('ctx') ?? '').split('@');
  const around = new URLSearchParams({ file: file ?? '', offset: offset ?? '', before: '15', after: '15' });
  const { data } = await (await page.request.get(`${url()}/api/logs/context?${around}`)).json();
  const messages = [...data.before, data.entry, ...data.after].map((entry: { message: string }) => entry.message);
  expect(texts.map((text) => text.split('\n').at(-1)), 'in the order of the file').toEqual(messages);
  const shown = texts.length;
  await page.getByRole('button', { name: /lines before/ }).click();
  await expect.poll(() => lines.count()).toBeGreaterThan(shown);
  await page.getByRole('searchbox', { name: /Mark words/ }).fill('charge');
  await expect(page.getByTestId('context').locator('mark').first()).toHaveText('charge');
  await page.reload();
  await expect(current).toContainText(message.slice(0, 60));
  await page.keyboard.press('Escape');
  await expect(page.getByTestId('row').first()).toBeVisible();
  expect(problems).toEqual([]);
});

test('lines that came by no file have neighbours of their stream', async ({ page }) => {
  const now = BigInt(Date.now()) * 1_000_000n;
  const values = Array.from({ length: 30 }, (_, n) => [String(now - BigInt((30 - n) * 1000)), `pushed line ${n}`]);
  const stream = { namespace: 'pushed', pod: `push-${Date.now()}` };
  const pushed = await page.request.post(`${url()}/loki/api/v1/push`, { data: { streams: [{ stream, values }] } });
  expect(pushed.status()).toBe(204);
  await page.goto(`${url()}/?${new URLSearchParams({ q: `pod:${stream.pod} "line 15"` })}`);
  await page.getByTestId('row').first().click();
  await page.getByRole('button', { name: 'Lines around it' }).click();
  await expect(page.getByTestId('context-line')).toHaveCount(30);
  await expect(page.locator('[data-testid=context-line][aria-current]')).toContainText('pushed line 15');
  await expect(page.getByTestId('context-line').nth(14)).toContainText('pushed line 14');
});

test('results come in pieces, say how far they are, and can be cancelled', async ({ page }) => {
  const entry = (n: number) => ({
    time: '2026-11-20T12:00:00Z', time_ns: '1795176000000000000', received_ns: '1', level: 'info', message: `piece ${n}`, stream: {}, fields: {}, file: 'f', offset: n, id: `1.1.${n}`,
  });
  // A server that never comes to an end: the first piece, and then nothing.
  await page.addInitScript((piece) => {
    const real = window.fetch;
    window.fetch = (input, init) => {
      if (!String(input).includes('/api/logs/search') || !String(input).includes('stream=true')) return real(input, init);
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode(piece));
          init?.signal?.addEventListener('abort', () => {
            document.documentElement.dataset['aborted'] = 'yes';
            controller.error(new DOMException('', 'AbortError'));
          });
        },
      });
      return Promise.resolve(new Response(body));
    };
  }, JSON.stringify({ type: 'slice', start_ns: String(BigInt(Date.now() - 900_000) * 1_000_000n), end_ns: '2', entries: [entry(1)], total: 7 }) + '\n');
  await page.goto(`${url()}/?q=piece`);
  await expect(page.getByTestId('row')).toContainText('piece 1');
  await expect(page.getByTestId('status')).toContainText('searched back to');
  await expect(page.getByTestId('status')).toContainText('7+');
  const progress = page.getByRole('progressbar');
  await expect.poll(async () => Number(await progress.getAttribute('aria-valuenow'))).toBeGreaterThan(20);
  expect(Number(await progress.getAttribute('aria-valuenow'))).toBeLessThan(30);
  await page.getByTestId('cancel').click();
  await expect(page.getByTestId('status')).toContainText('cancelled');
  await expect(page.locator('html')).toHaveAttribute('data-aborted', 'yes');
  await expect(page.getByTestId('row')).toContainText('piece 1');
});

test('warnings and errors of the server are shown', async ({ page }) => {
  const end = { type: 'end', status: 'success', total: 0, cursor: null, more: false, highlights: [], warnings: ['65536 log lines of partition p1 were damaged and set aside'], hints: [], hint: null, start_ns: '1', end_ns: '2' };
  await page.route(/\/api\/logs\/search/, (route) => route.fulfill({ body: JSON.stringify(end) + '\n' }));
  await page.goto(url());
  await expect(page.getByTestId('warning')).toContainText('damaged');
  await page.unroute(/\/api\/logs\/search/);
  await page.getByTestId('query').fill('/(/');
  await page.getByTestId('query').press('Enter');
  await expect(page.getByTestId('hint').or(page.getByRole('alert')).first()).toBeVisible();
});

test('an export has all matches in each format', async ({ page }) => {
  await open(page, { q: 'service:payment' });
  const all = await total(page);
  for (const [title, count] of [
    ['NDJSON', (text: string) => text.trim().split('\n').length - 1],
    ['CSV', (text: string) => text.trim().split('\r\n').length - 1],
    ['Text', (text: string) => text.trim().split('\n').length],
  ] as const) {
    await page.getByTestId('export').click();
    const link = page.getByRole('link', { name: new RegExp(`^${title}`) });
    const answer = await page.request.get(new URL((await link.getAttribute('href')) ?? '', url()).href);
    expect(answer.headers()['content-disposition']).toContain('attachment');
    expect(count(await answer.text()), title).toBe(all);
    await page.keyboard.press('Escape');
  }
});

test('live tail pauses, counts what waits, and goes on', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url()}/?live=1&q=service:payment`);
  await expect(page.getByTestId('live-state')).toHaveText('● live');
  await page.getByRole('button', { name: 'Pause' }).click();
  const before = await page.getByTestId('row').first().innerText();
  const resume = page.getByRole('button', { name: /Resume, [1-9]/ });
  await expect(resume).toBeVisible();
  expect(await page.getByTestId('row').first().innerText(), 'nothing moves').toBe(before);
  await resume.click();
  await expect(page.getByTestId('row').first()).not.toHaveText(before);
  expect(problems).toEqual([]);
});

test('live tail says what was left out', async ({ page }) => {
  await page.addInitScript(() => {
    class Source extends EventTarget {
      constructor() {
        super();
        setTimeout(() => {
          this.dispatchEvent(new Event('open'));
          this.dispatchEvent(new MessageEvent('dropped', { data: '1234' }));
        }, 100);
      }
      close() {}
    }
    Object.assign(window, { EventSource: Source });
  });
  await page.goto(`${url()}/?live=1`);
  await expect(page.getByTestId('dropped')).toHaveText('1,234 lines left out');
});

test('an address holds the whole state, and a copied one stands still', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const params = { q: 'namespace:shop', from: 'now-15m', cols: 'service,status', open: 'pod', wrap: '1' };
  await page.goto(`${url()}/?${new URLSearchParams(params)}`);
  await expect(page.getByRole('columnheader', { name: /status/ })).toBeVisible();
  await expect(page.getByTestId('facet-pod')).toBeVisible();
  await expect(page.getByRole('checkbox')).toBeChecked();
  await settled(page);
  await page.getByRole('button', { name: 'Copy link' }).click();
  await expect(page.getByRole('status').filter({ hasText: 'Link copied' })).toBeVisible();
  const link = new URL(await page.evaluate(() => navigator.clipboard.readText()));
  expect(link.searchParams.get('cols')).toBe('service,status');
  expect(link.searchParams.get('from')).toMatch(/^\d{4}-.*Z$/);
  await page.goto(link.href);
  await settled(page);
  const first = await total(page);
  expect(first).toBeGreaterThan(0);
  await page.reload();
  await settled(page);
  await expect.poll(() => total(page)).toBe(first);
});

test('keys lead everywhere', async ({ page }) => {
  await open(page, { q: 'service:payment' });
  await page.keyboard.press('/');
  await expect(page.getByTestId('query')).toBeFocused();
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await expect(page.getByTestId('detail')).toBeVisible();
  await page.keyboard.press('c');
  await expect(page.getByTestId('context')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByTestId('context')).toHaveCount(0);
  await page.keyboard.press('p');
  await expect(page.getByTestId('patterns')).toBeVisible();
  await page.keyboard.press('p');
  await page.keyboard.press('f');
  await expect(page.getByTestId('fields')).toHaveCount(0);
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toBeHidden();
  await page.keyboard.press('[');
  await expect(page).toHaveURL(/from=/);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`each view of logs is accessible in ${scheme} colours and fits a phone`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme });
    for (const params of [{}, { view: 'patterns' }, { live: '1' }] as Record<string, string>[]) {
      await page.setViewportSize({ width: 1280, height: 800 });
      await page.goto(`${url()}/?${new URLSearchParams({ q: 'service:payment', ...params })}`);
      await settled(page);
      await expect(page.getByTestId('facet-service').getByRole('listitem').first()).toBeVisible();
      if (!params['view']) await page.getByTestId('row').first().click();
      await page.getByTestId('export').click();
      await accessible(page, JSON.stringify(params));
      await page.keyboard.press('Escape');
      await page.setViewportSize({ width: 400, height: 800 });
      await fits(page);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
    await open(page, { q: 'service:payment' });
    await page.getByTestId('row').first().click();
    await page.getByRole('button', { name: 'Lines around it' }).click();
    await expect(page.getByTestId('context-line').first()).toBeVisible();
    await accessible(page, 'context');
    await page.setViewportSize({ width: 400, height: 800 });
    await fits(page);
  });
}

async function accessible(page: Page, what: string) {
  const found = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag22aa']).analyze();
  const named = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`);
  expect(named, what).toEqual([]);
}

async function fits(page: Page) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  expect(wide, 'scrolls sideways on a phone').toBe(false);
}
