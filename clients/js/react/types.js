// The types are in types.d.ts, because only TypeScript can declare an interface to augment.
export {};
