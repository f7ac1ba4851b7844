import { Header } from './components/Header.jsx';
import { PublishPanel } from './components/PublishPanel.jsx';
import { UserPane } from './components/UserPane.jsx';
import { getConfig } from './api.js';
import { useBrowserNotifications } from './useBrowserNotifications.js';
import { useLoaded } from './useLoaded.js';

export function App() {
  const { value: config, error } = useLoaded(getConfig);
  const notifications = useBrowserNotifications();
  return (
    <div className="shell">
      <Header permission={notifications.permission} onAsk={notifications.ask} />
      <main>
        {error && !config && (
          <p className="notice" role="alert">
            The backend is not available. Retrying.
          </p>
        )}
        {config && <PublishPanel users={config.users} />}
        {config && (
          <div className="panes">
            {config.users.map((user, place) => (
              <UserPane
                key={user.id}
                user={user}
                series={place + 1}
                config={config}
                notify={notifications.show}
              />
            ))}
          </div>
        )}
      </main>
    </div>
  );
}
