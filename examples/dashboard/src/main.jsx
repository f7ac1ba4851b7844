import '@fontsource-variable/inter';
import './styles/base.css';
import './styles/layout.css';
import './styles/controls.css';
import './styles/desk.css';
import './styles/notifications.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App.jsx';

createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>);
