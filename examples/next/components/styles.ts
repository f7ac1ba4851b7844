export const BUTTON = 'rounded border border-zinc-500 px-3 py-1.5 text-sm hover:bg-zinc-500/10';
export const LINE = 'border-zinc-300 dark:border-zinc-700';
export const CARD = `rounded-lg border p-4 ${LINE}`;
