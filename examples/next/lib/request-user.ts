import { currentUser } from './session';

/**
 * The user who is signed in, if the request is from a page of this user, `?user=`. An open page may
 * be of another one: all tabs of a browser have the same cookies.
 */
export async function requestUser(request: Request) {
  const user = await currentUser();
  return user?.id === new URL(request.url).searchParams.get('user') ? user : undefined;
}
