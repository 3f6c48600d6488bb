<?php
// PHP-FPM, whose one child serves one connection at a time.
header('Content-Type: text/plain');
switch (strtok($_SERVER['REQUEST_URI'], '?')) {
    case '/headers':
        $length = 0;
        foreach ($_SERVER as $name => $value) {
            if (str_starts_with($name, 'HTTP_')) $length += strlen($name) - 5 + strlen($value);
        }
        for ($i = 1; $i <= 19; $i++) header("X-Field-$i: the value of header $i");
        for ($i = 1; $i <= 3; $i++) header("Set-Cookie: c$i=0123456789abcdef; Path=/", false);
        echo $length > 900 ? 'true' : 'false';
        break;
    case '/echo':
        echo file_get_contents('php://input');
        break;
    case '/upload':
        echo strlen(file_get_contents('php://input'));
        break;
    default:
        echo 'Hello, world';
}
