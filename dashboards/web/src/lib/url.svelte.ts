// The page's state lives in its address: a link shows what its sender saw.

class Address {
  params = $state(new URLSearchParams(location.search));

  constructor() {
    addEventListener('popstate', () => {
      this.params = new URLSearchParams(location.search);
    });
  }

  get(name: string, fallback = ''): string {
    return this.params.get(name) ?? fallback;
  }

  /** Sets or removes parameters; a step back in the browser undoes it. */
  set(change: Record<string, string | undefined>, replace = false) {
    const next = new URLSearchParams(this.params);
    for (const [name, value] of Object.entries(change)) {
      if (value) next.set(name, value);
      else next.delete(name);
    }
    const query = next.toString();
    if (query === this.params.toString()) return;
    const address = query ? `/?${query}` : '/';
    if (replace) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
    this.params = next;
  }
}

export const address = new Address();
