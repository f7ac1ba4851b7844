/** Adds the user for whom the page was rendered to a URL. `requestUser` checks it. */
export const asUser = (url: string, userId: string) => `${url}?user=${encodeURIComponent(userId)}`;
