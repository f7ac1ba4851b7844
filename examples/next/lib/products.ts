/** Prices in euros. */
export const PRICES = { lamp: 40, chair: 90, desk: 250 };

export type Product = keyof typeof PRICES;

export const PRODUCTS = Object.keys(PRICES) as [Product, ...Product[]];
